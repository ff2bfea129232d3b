// Plays one chunk or passage: a button with data-start and data-end (seconds) moves the recording's player.
let end = Infinity;
element.addEventListener("click", event => {
  const button = event.target.closest("[data-start]");
  const player = element.querySelector("audio");
  if (!button || !player) return;
  end = Number(button.dataset.end);
  player.ontimeupdate = () => { if (player.currentTime >= end) { player.pause(); end = Infinity; } };
  player.currentTime = Number(button.dataset.start);
  player.play();
});
