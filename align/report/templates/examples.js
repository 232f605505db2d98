
// One example at a time, in what the filter shows. Without this file the examples are a plain list.
for (const browse of document.querySelectorAll(".browse")) {
  const items = [...browse.nextElementSibling.children];
  const filters = [...browse.querySelectorAll("[data-filter]")];
  const steps = [...browse.querySelectorAll("[data-step]")];
  const at = browse.querySelector(".at");
  let shown = items, place = 0;
  const draw = () => {
    for (const item of items) item.hidden = item !== shown[place];
    at.textContent = shown.length ? `${place + 1} / ${shown.length}` : "0";
    for (const step of steps) step.disabled = !shown[place + Number(step.dataset.step)];
  };
  const move = (by) => {
    if (!shown[place + by]) return;
    place += by;
    draw();
  };
  for (const filter of filters) {
    filter.addEventListener("click", () => {
      for (const other of filters) other.setAttribute("aria-pressed", String(other === filter));
      const kind = filter.dataset.filter;
      shown = kind === "all" ? items : items.filter((item) => item.dataset.kind === kind);
      place = 0;
      draw();
    });
  }
  for (const step of steps) step.addEventListener("click", () => move(Number(step.dataset.step)));
  document.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const box = browse.parentElement.getBoundingClientRect();
    const seen = box.top < innerHeight && box.bottom > 0;
    if (!by || !seen || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    move(by);
  });
  browse.hidden = false;
  draw();
}
