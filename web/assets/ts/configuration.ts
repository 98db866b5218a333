// Staged changes of configuration: collected here, shown as a diff, applied together as one release.
//
// Nothing leaves the browser before `Apply`: values of secrets are not kept on the server while one
// thinks about them.
interface Change {
  name: string;
  component: string;
  kind: "set" | "unset";
  value: string;
  secret: boolean;
}

const form = document.querySelector<HTMLFormElement>("[data-configuration]");
if (form) start(form);

function start(root: HTMLFormElement): void {
  const add = document.getElementById("variable-form") as HTMLFormElement | null;
  const panel = document.getElementById("staged")!;
  const list = panel.querySelector<HTMLElement>("[data-diff]")!;
  const total = panel.querySelector<HTMLElement>("[data-total]")!;
  const payload = root.querySelector<HTMLInputElement>("input[name=changes]")!;
  const staged = new Map<string, Change>();
  let sending = false;

  const key = (component: string, name: string): string => `${component}/${name}`;
  const row = (id: string): HTMLElement | null => document.querySelector(`tr[data-variable="${CSS.escape(id)}"]`);

  function line(style: string, text: string): HTMLElement {
    const item = document.createElement("li");
    item.className = style;
    const span = document.createElement("span");
    span.textContent = text;
    item.append(span);
    return item;
  }

  function draw(): void {
    for (const marked of document.querySelectorAll("tr.staged-set, tr.staged-unset")) {
      marked.classList.remove("staged-set", "staged-unset");
    }
    const items: HTMLElement[] = [];
    for (const [id, change] of staged) {
      const existing = row(id);
      const where = change.component ? `${change.component}: ` : "";
      const before = existing?.dataset.secret ? "(secret)" : (existing?.dataset.value ?? "");
      if (existing) items.push(line("minus", `${where}${change.name}=${before}`));
      if (change.kind === "set") {
        items.push(line("plus", `${where}${change.name}=${change.secret ? "•".repeat(8) : change.value}`));
      }
      existing?.classList.add(change.kind === "set" ? "staged-set" : "staged-unset");
    }
    list.replaceChildren(...items);
    total.textContent = staged.size === 1 ? "1 change" : `${staged.size} changes`;
    panel.hidden = staged.size === 0;
  }

  function stage(change: Change): void {
    staged.set(key(change.component, change.name), change);
    draw();
  }

  /** `NAME=value` lines of a .env file, as they are pasted into the name field. */
  function paste(text: string, component: string, secret: boolean): boolean {
    const found = text
      .split(/\r?\n/)
      .map((each) => each.trim().replace(/^export\s+/, ""))
      .filter((each) => each && !each.startsWith("#"))
      .map((each) => each.match(/^([A-Za-z_][A-Za-z0-9_]*)=(.*)$/));
    if (!found.length || found.some((match) => !match)) return false;
    for (const match of found) {
      const value = match![2]!.replace(/^(["'])(.*)\1$/, "$2");
      stage({ name: match![1]!, component, kind: "set", value, secret });
    }
    return true;
  }

  add?.addEventListener("submit", (event) => {
    event.preventDefault();
    const data = new FormData(add);
    const name = String(data.get("name")).trim();
    const component = String(data.get("component") ?? "");
    const secret = data.get("secret") === "on";
    if (!/^[A-Za-z_][A-Za-z0-9_]*$/.test(name)) return;
    stage({ name, component, kind: "set", value: String(data.get("value")), secret });
    add.reset();
    (add.elements.namedItem("name") as HTMLInputElement).focus();
  });
  add?.addEventListener("paste", (event) => {
    const text = event.clipboardData?.getData("text") ?? "";
    if (!text.includes("=") || (event.target as HTMLInputElement).name !== "name") return;
    const data = new FormData(add);
    if (paste(text, String(data.get("component") ?? ""), data.get("secret") === "on")) event.preventDefault();
  });
  document.addEventListener("click", (event) => {
    const target = event.target as Element;
    const owner = target.closest<HTMLElement>("tr[data-variable]");
    if (owner && target.closest("[data-edit]") && add) {
      const fields = add.elements;
      (fields.namedItem("name") as HTMLInputElement).value = owner.dataset.name ?? "";
      (fields.namedItem("component") as HTMLSelectElement).value = owner.dataset.component ?? "";
      (fields.namedItem("secret") as HTMLInputElement).checked = Boolean(owner.dataset.secret);
      const value = fields.namedItem("value") as HTMLInputElement;
      value.value = owner.dataset.secret ? "" : (owner.dataset.value ?? "");
      value.focus();
      value.select();
    }
    if (owner && target.closest("[data-unset]")) {
      const id = owner.dataset.variable ?? "";
      if (staged.get(id)?.kind === "unset") staged.delete(id);
      else {
        staged.set(id, {
          name: owner.dataset.name ?? "",
          component: owner.dataset.component ?? "",
          kind: "unset",
          value: "",
          secret: false,
        });
      }
      draw();
    }
    if (target.closest("[data-discard]")) {
      staged.clear();
      draw();
    }
  });
  root.addEventListener("submit", () => {
    sending = true;
    payload.value = JSON.stringify([...staged.values()]);
  });
  addEventListener("beforeunload", (event) => {
    if (staged.size && !sending) event.preventDefault();
  });
}
