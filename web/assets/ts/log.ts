// A log that follows: lines arrive by the page's event stream, already split into coloured parts.
interface Line {
  n: number;
  at: string | null;
  from: string;
  hue: number;
  kind: string;
  parts: [string, string][];
}

/** More lines than this are dropped from the top: a page isn't an archive. */
const KEPT = 5000;

const root = document.querySelector<HTMLElement>("[data-log]");
if (root) start(root);

function start(log: HTMLElement): void {
  const lines = log.querySelector<HTMLElement>(".lines")!;
  const jump = log.querySelector<HTMLButtonElement>(".jump");
  const streams = log.classList.contains("streams");
  const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
  let following = !location.hash;
  let last = Number(log.dataset.last ?? 0);

  function element(line: Line): HTMLElement {
    const row = document.createElement("div");
    row.className = `line ${line.kind}`;
    row.id = `L${line.n}`;
    if (streams) {
      const at = document.createElement("span");
      at.className = "at";
      if (line.at) {
        at.textContent = clock.format(new Date(line.at));
        at.title = new Date(line.at).toLocaleString();
      }
      const from = document.createElement("span");
      from.className = `from hue-${line.hue}`;
      from.textContent = line.from;
      row.append(at, from);
    } else {
      const number = document.createElement("a");
      number.className = "n";
      number.href = `#L${line.n}`;
      number.textContent = String(line.n);
      number.setAttribute("aria-label", `Line ${line.n}`);
      row.append(number);
    }
    const text = document.createElement("span");
    text.className = "text";
    for (const [words, style] of line.parts) {
      if (!style) text.append(words);
      else {
        const part = document.createElement("span");
        part.className = style;
        part.textContent = words;
        text.append(part);
      }
    }
    row.append(text);
    return row;
  }

  function follow(): void {
    if (following) lines.scrollTop = lines.scrollHeight;
    if (jump) jump.hidden = following || lines.scrollHeight <= lines.clientHeight;
  }

  document.body.addEventListener("cy:lines", (event) => {
    const fresh = (event as CustomEvent<Line[]>).detail.filter((line) => line.n > last);
    if (!fresh.length) return;
    lines.querySelector(".none")?.remove();
    const batch = document.createDocumentFragment();
    for (const line of fresh) batch.append(element(line));
    last = fresh[fresh.length - 1]!.n;
    lines.append(batch);
    while (lines.childElementCount > KEPT) lines.firstElementChild!.remove();
    follow();
  });
  // Reading further up stops following; coming back to the end starts it again.
  lines.addEventListener("scroll", () => {
    following = lines.scrollTop + lines.clientHeight >= lines.scrollHeight - 24;
    if (jump) jump.hidden = following;
  });
  jump?.addEventListener("click", () => {
    following = true;
    follow();
    lines.focus();
  });
  for (const at of log.querySelectorAll<HTMLElement>(".at[data-at]")) {
    const moment = new Date(at.dataset.at ?? "");
    at.textContent = clock.format(moment);
    at.title = moment.toLocaleString();
  }
  if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView({ block: "center" });
  else follow();
}
