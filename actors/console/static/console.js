// Keys, "choose all", how many are chosen, and what is said when the stack does not answer.  Every page works without.
(() => {
  "use strict";

  const typing = (element) => element.closest("input:not([type=checkbox]), textarea, select") !== null;
  const rows = () => [...document.querySelectorAll("[data-row]")];
  let at = -1;

  const go = (step) => {
    const all = rows();
    if (!all.length) return;
    at = Math.min(all.length - 1, Math.max(0, at + step));
    all[at].focus();
    all[at].scrollIntoView({ block: "nearest" });
  };

  const open = (row, key) => {
    const where = row.dataset.open;
    location.assign(key === "e" ? `${where}/edit` : key ? `${where}#${key}` : where);
  };

  document.addEventListener("focusin", (event) => {
    const row = event.target.closest("[data-row]");
    if (row) at = rows().indexOf(row);
  });

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target)) return;
    const row = rows()[at];
    const button = document.querySelector(`[data-key="${CSS.escape(event.key)}"]`);
    if (event.key === "j") go(1);
    else if (event.key === "k") go(-1);
    else if (row && event.key === "x") row.querySelector("input[type=checkbox]")?.click();
    else if (row && event.key === "Enter" && event.target === row) open(row, "");
    else if (row && ["a", "r", "e"].includes(event.key)) open(row, event.key);
    else if (button && button.href) location.assign(button.href);
    else if (button) button.focus();
    else return;
    event.preventDefault();
  });

  const toButton = () => {
    const key = location.hash.slice(1);
    if (["a", "r"].includes(key)) document.querySelector(`[data-key="${key}"]`)?.focus();
  };

  const boxes = () => [...document.querySelectorAll("input[type=checkbox][name=approval]")];
  const count = () => {
    const chosen = boxes().filter((each) => each.checked).length;
    for (const each of document.querySelectorAll("[data-chosen]")) each.textContent = chosen ? `${chosen} chosen` : "";
  };

  const start = () => {
    const all = document.querySelector("[data-choose-all]");
    if (all) {
      all.closest("label").hidden = false;
      document.addEventListener("change", (event) => {
        if (event.target === all) for (const each of boxes()) each.checked = all.checked;
        count();
      });
      count();
    }
    toButton();
  };

  const stale = (is) => {
    for (const each of document.querySelectorAll(".stale")) each.hidden = !is;
  };
  for (const name of ["htmx:error", "htmx:sse:error"]) document.addEventListener(name, () => stale(true));
  document.addEventListener("htmx:after:request", (event) => stale(event.detail.ctx.response.status >= 400));
  window.addEventListener("hashchange", toButton);
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
