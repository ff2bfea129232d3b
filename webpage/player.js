// Plays passages: a button with data-start and data-end (seconds) moves the player of its part of the page; pressed
// again, it pauses. And brings what has data-show into view, once.
let playing = null;
const stop = () => {
  element.querySelector("audio")?.pause();
  playing?.removeAttribute("data-playing");
  playing = null;
};
element.addEventListener("click", event => {
  const button = event.target.closest("[data-start]");
  const player = element.querySelector("audio");
  if (!button || !player) return;
  const again = button === playing;
  stop();
  if (again) return;
  document.querySelectorAll("audio").forEach(other => other.pause());
  playing = button;
  button.setAttribute("data-playing", "");
  player.ontimeupdate = () => { if (playing && player.currentTime >= Number(playing.dataset.end)) stop(); };
  player.currentTime = Number(button.dataset.start);
  player.play();
});
const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
const show = () => {
  const target = element.querySelector("[data-show]");
  const box = target?.getBoundingClientRect();
  if (!box?.width) return; // not visible yet
  target.removeAttribute("data-show");
  const frame = target.closest(".wide");
  if (frame) frame.scrollLeft += box.left - frame.getBoundingClientRect().left - frame.clientWidth / 2;
  else if (box.top < 0 || box.top > 0.6 * innerHeight) {
    target.scrollIntoView({ block: "start", behavior: still ? "auto" : "smooth" });
  }
};
watch("value", () => { stop(); show(); });
new ResizeObserver(show).observe(element);
