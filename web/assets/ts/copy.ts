// Buttons with `data-copy` put their text on the clipboard and say that they did.
export function startCopying(): void {
  document.addEventListener("click", async (event) => {
    const button = (event.target as Element).closest<HTMLElement>("[data-copy]");
    if (!button) return;
    event.preventDefault();
    const from = button.dataset.copyFrom;
    const text = from ? (document.getElementById(from)?.textContent ?? "") : (button.dataset.copy ?? "");
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      return; // Not allowed here (no secure context): the text itself stays selectable.
    }
    button.dataset.done = "1";
    const label = button.getAttribute("aria-label");
    button.setAttribute("aria-label", "Copied");
    setTimeout(() => {
      delete button.dataset.done;
      if (label) button.setAttribute("aria-label", label);
      else button.removeAttribute("aria-label");
    }, 1500);
  });
}
