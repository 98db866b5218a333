// Short messages about something that failed in the background.
export function toast(tone: "ok" | "bad", sentence: string, next = "", id = ""): void {
  const place = document.getElementById("toasts");
  if (!place) return;
  const box = document.createElement("div");
  box.className = `toast tone-${tone}`;
  box.setAttribute("role", tone === "bad" ? "alert" : "status");
  const text = document.createElement("div");
  const strong = document.createElement("div");
  strong.className = "strong";
  strong.textContent = sentence;
  text.append(strong);
  for (const [value, style] of [
    [next, "muted"],
    [id, "mono small faint"],
  ] as const) {
    if (!value) continue;
    const line = document.createElement("div");
    line.className = style;
    line.textContent = value;
    text.append(line);
  }
  box.append(text);
  place.append(box);
  setTimeout(() => box.remove(), 9000);
}
