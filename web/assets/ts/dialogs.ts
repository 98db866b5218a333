// Dialogs open by `data-dialog=ID`; menus are <details> that close when one looks elsewhere.
export function startDialogs(): void {
  document.addEventListener("click", (event) => {
    const target = event.target as Element;
    const opener = target.closest<HTMLElement>("[data-dialog]");
    if (opener) {
      const dialog = document.getElementById(opener.dataset.dialog ?? "");
      if (dialog instanceof HTMLDialogElement) {
        event.preventDefault();
        dialog.showModal();
        dialog.querySelector<HTMLElement>("[autofocus]")?.focus();
      }
    }
    if (target.closest("[data-close]")) target.closest("dialog")?.close();
    if (target instanceof HTMLDialogElement && target.open) target.close();
    for (const menu of document.querySelectorAll<HTMLDetailsElement>("details.menu[open]")) {
      if (!menu.contains(target)) menu.open = false;
    }
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    for (const menu of document.querySelectorAll<HTMLDetailsElement>("details.menu[open]")) {
      menu.open = false;
      menu.querySelector("summary")?.focus();
    }
  });
  // What destroys something waits for its name.
  document.addEventListener("input", (event) => {
    const input = event.target as HTMLInputElement;
    const wanted = input.dataset?.confirm;
    if (!wanted) return;
    const button = input.form?.querySelector<HTMLButtonElement>("button[type=submit]");
    if (button) button.disabled = input.value.trim() !== wanted;
  });
  // A form is sent once.
  document.addEventListener("submit", (event) => {
    const form = event.target as HTMLFormElement;
    if (form.method === "get" || form.hasAttribute("hx-post")) return;
    if (form.dataset.sent) event.preventDefault();
    form.dataset.sent = "1";
    setTimeout(() => delete form.dataset.sent, 4000);
  });
  // A select that filters sends its form by itself.
  document.addEventListener("change", (event) => {
    const select = event.target as HTMLElement;
    if (select.matches("select[data-send]")) (select as HTMLSelectElement).form?.requestSubmit();
  });
}
