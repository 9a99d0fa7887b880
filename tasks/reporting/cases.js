// The case browser: which of the cases in the page are shown, in which order, a dozen at a time.
(() => {
  const STEP = 12;
  const browser = document.querySelector(".browser");
  const cases = [...browser.querySelectorAll(".case")];
  const list = browser.querySelector(".cases");
  const filters = browser.querySelector(".filters");
  const found = browser.querySelector(".found");
  const more = browser.querySelector(".more");
  const wanted = (name) => filters.querySelector(`[name=${name}]`).value;
  const of = (node, name) => node.getAttribute(`data-${name}-${wanted("rft")}`); // of the algorithm that is looked at
  const gain = (node) => Number(of(node, "gain"));
  const place = new Map(cases.map((node, i) => [node, i])); // the order of the hash
  const orders = {
    difference: (a, b) => Math.abs(gain(b)) - Math.abs(gain(a)),
    gain: (a, b) => gain(b) - gain(a),
    loss: (a, b) => gain(a) - gain(b),
    drawn: () => 0,
  };
  let most = STEP;

  function show() {
    const fits = (node) => ["", of(node, "outcome")].includes(wanted("outcome"))
      && ["k", "category"].every((name) => ["", node.dataset[name]].includes(wanted(name)));
    const order = orders[wanted("order")];
    const chosen = cases.filter(fits).sort((a, b) => order(a, b) || place.get(a) - place.get(b));
    cases.forEach((node) => { node.hidden = true; });
    chosen.forEach((node, i) => {
      node.hidden = i >= most;
      list.append(node);
    });
    const shown = Math.min(most, chosen.length);
    found.textContent = chosen.length ? `${shown} of ${chosen.length} cases` : "No case is like that; choose otherwise.";
    more.hidden = shown === chosen.length;
    for (const box of filters.querySelectorAll("[name=source]")) {
      for (const node of browser.querySelectorAll(`.of-${box.value}`)) node.style.display = box.checked ? "" : "none";
    }
  }

  filters.addEventListener("change", () => { most = STEP; show(); });
  more.addEventListener("click", () => { most += STEP; show(); });
  filters.hidden = false;
  show();
})();
