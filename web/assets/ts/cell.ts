// Brings the server's picture of the cell to life: figures move in place, edges can be asked about.
//
// The server lays the picture out. As long as its shape stays (same parts, same edges) an event only
// changes words and classes; another shape makes htmx fetch the picture anew.
import htmx from "htmx.org";

interface Picture {
  shape: string;
  edges: Record<string, { label: string; style: string; title: string }>;
  nodes: Record<string, { tone: string; word: string; note: string }>;
}

const stage = document.querySelector<HTMLElement>("[data-picture]");
if (stage) start(stage);

function start(place: HTMLElement): void {
  let chosen = "";
  const sheet = (): HTMLElement | null => document.getElementById("edge-sheet");

  function each(attribute: string, key: string, act: (element: Element) => void): void {
    for (const element of place.querySelectorAll(`[data-${attribute}="${CSS.escape(key)}"]`)) act(element);
  }

  function words(parent: Element, selector: string, text: string): void {
    const element = parent.querySelector(selector);
    if (element && element.textContent !== text) element.textContent = text;
  }

  document.body.addEventListener("cy:picture", (event) => {
    const picture = (event as CustomEvent<Picture>).detail;
    const svg = place.querySelector<HTMLElement>("[data-shape]");
    if (!svg || svg.dataset.shape !== picture.shape) {
      place.dispatchEvent(new CustomEvent("cy:shape", { bubbles: true }));
      return;
    }
    for (const [key, edge] of Object.entries(picture.edges)) {
      each("edge", key, (element) => {
        element.setAttribute("class", `edge ${edge.style}${key === chosen ? " chosen" : ""}`);
        words(element, ".pill text", edge.label);
        words(element, "title", edge.title);
      });
    }
    for (const [key, node] of Object.entries(picture.nodes)) {
      each("node", key, (element) => {
        element.setAttribute("class", `${element.getAttribute("data-class")} tone-${node.tone}`);
        words(element, ".state-word", node.word);
        words(element, ".note", node.note);
      });
    }
  });

  function close(): void {
    const open = sheet();
    if (open) open.hidden = true;
    each("edge", chosen, (element) => element.classList.remove("chosen"));
    for (const row of document.querySelectorAll("tr.chosen")) row.classList.remove("chosen");
    chosen = "";
  }

  /** Show what the table says about an edge next to where it was clicked. */
  function open(key: string, from: Element): void {
    close();
    const box = sheet();
    const source = document.querySelector(`template[data-about="${CSS.escape(key)}"]`);
    if (!box || !(source instanceof HTMLTemplateElement)) return;
    chosen = key;
    each("edge", key, (element) => element.classList.add("chosen"));
    document.querySelector(`tr[data-row="${CSS.escape(key)}"]`)?.classList.add("chosen");
    const content = box.querySelector<HTMLElement>(".content")!;
    content.replaceChildren(source.content.cloneNode(true));
    htmx.process(content); // a refused edge fetches the declaration that would open it
    box.hidden = false;
    put(box, from);
    // What it fetches makes it taller.
    content.addEventListener("htmx:afterSettle", () => put(box, from), { once: true });
    box.querySelector<HTMLElement>(".close")?.focus({ preventScroll: true });
  }

  /** Next to the edge's label, and whole within the picture. */
  function put(box: HTMLElement, from: Element): void {
    const ground = place.getBoundingClientRect();
    const pill = (from.querySelector(".pill") ?? from).getBoundingClientRect();
    box.style.maxHeight = `${ground.height - 16}px`;
    const left = Math.min(Math.max(12, pill.left - ground.left + pill.width / 2 - 180), ground.width - 372);
    const below = pill.bottom - ground.top + 10;
    const room = ground.height - box.offsetHeight - 8;
    box.style.left = `${Math.max(12, left)}px`;
    box.style.top = `${Math.max(8, Math.min(below, room))}px`;
  }

  place.addEventListener("click", (event) => {
    const target = event.target as Element;
    if (target.closest("#edge-sheet .close")) {
      const back = chosen;
      close();
      place.querySelector<SVGElement>(`[data-edge="${CSS.escape(back)}"]`)?.focus();
      return;
    }
    if (target.closest("#edge-sheet")) return;
    const edge = target.closest("[data-edge]");
    if (edge) open(edge.getAttribute("data-edge") ?? "", edge);
    else close();
  });
  place.addEventListener("keydown", (event) => {
    const edge = (event.target as Element).closest("[data-edge]");
    if (edge && (event.key === "Enter" || event.key === " ")) {
      event.preventDefault();
      open(edge.getAttribute("data-edge") ?? "", edge);
    }
    if (event.key === "Escape") close();
  });
}
