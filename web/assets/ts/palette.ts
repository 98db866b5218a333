// Ctrl/Cmd-K: every project, component, deployment and action by typing. The server finds, this shows.
export function startPalette(): void {
  const dialog = document.getElementById("palette");
  if (!(dialog instanceof HTMLDialogElement)) return;
  const input = dialog.querySelector("input")!;
  const list = dialog.querySelector<HTMLElement>(".found")!;
  let asked = 0;
  let timer = 0;

  const options = (): HTMLElement[] => [...list.querySelectorAll<HTMLElement>("[role=option]")];
  const chosen = (): number => options().findIndex((o) => o.getAttribute("aria-selected") === "true");

  function choose(index: number): void {
    const all = options();
    if (!all.length) {
      input.removeAttribute("aria-activedescendant");
      return;
    }
    const at = (index + all.length) % all.length;
    all.forEach((option, i) => option.setAttribute("aria-selected", String(i === at)));
    const option = all[at]!;
    input.setAttribute("aria-activedescendant", option.id);
    option.scrollIntoView({ block: "nearest" });
  }

  async function find(): Promise<void> {
    const mine = ++asked;
    const query = new URLSearchParams({ q: input.value, at: location.pathname });
    const response = await fetch(`/-/palette?${query}`, { headers: { Accept: "text/html" } });
    if (mine !== asked || !response.ok) return;
    // Our own server's markup, escaped there; the policy keeps any script in it from running.
    list.innerHTML = await response.text();
    choose(0);
  }

  function open(): void {
    if (dialog instanceof HTMLDialogElement && !dialog.open) {
      dialog.showModal();
      input.value = "";
      input.focus();
      void find();
    }
  }

  function go(option: HTMLElement | undefined, elsewhere: boolean): void {
    const url = option?.dataset.url;
    if (!url) return;
    if (elsewhere) window.open(url, "_blank", "noopener");
    else location.assign(url);
    (dialog as HTMLDialogElement).close();
  }

  document.addEventListener("keydown", (event) => {
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "k") {
      event.preventDefault();
      open();
    }
    // A slash searches too, unless one is writing.
    const writing = (event.target as Element).closest?.("input, textarea, select, [contenteditable]");
    if (event.key === "/" && !writing && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      open();
    }
  });
  document.addEventListener("click", (event) => {
    if ((event.target as Element).closest("[data-palette]")) open();
  });
  input.addEventListener("input", () => {
    clearTimeout(timer);
    timer = window.setTimeout(() => void find(), 90);
  });
  input.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown") choose(chosen() + 1);
    else if (event.key === "ArrowUp") choose(chosen() - 1);
    else if (event.key === "Enter") go(options()[chosen()], event.ctrlKey || event.metaKey);
    else return;
    event.preventDefault();
  });
  list.addEventListener("click", (event) => {
    go((event.target as Element).closest<HTMLElement>("[role=option]") ?? undefined, event.ctrlKey || event.metaKey);
  });
  list.addEventListener("mousemove", (event) => {
    const option = (event.target as Element).closest<HTMLElement>("[role=option]");
    if (option && option.getAttribute("aria-selected") !== "true") choose(options().indexOf(option));
  });
}
