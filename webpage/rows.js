// A row of the table was chosen: tell the server which.
element.addEventListener("click", event => {
  const button = event.target.closest("[data-row]");
  if (button) trigger("click", { row: Number(button.dataset.row) });
});
