// Times are relative in place and absolute on hover, in the reader's own zone.
const UNITS: [number, number, string][] = [
  [60, 1, "s"],
  [3600, 60, "min"],
  [86400, 3600, "h"],
  [86400 * 60, 86400, "d"],
];
const absolute = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "long" });
const day = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", year: "numeric" });

/** How long ago `moment` was at `now`, both in milliseconds; the same words as the server's. */
export function ago(moment: number, now: number): string {
  const difference = (now - moment) / 1000;
  const seconds = Math.abs(difference);
  if (seconds < 5) return "just now";
  for (const [limit, size, unit] of UNITS) {
    if (seconds < limit) {
      const text = `${Math.floor(seconds / size)} ${unit}`;
      return difference < -5 ? `in ${text}` : `${text} ago`;
    }
  }
  return day.format(moment);
}

/** Seconds as `0.4 s`, `12 s`, `3 min 5 s`. */
export function span(seconds: number): string {
  if (seconds < 10) return `${Math.max(0, seconds).toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

function refresh(): void {
  const now = Date.now();
  for (const element of document.querySelectorAll<HTMLTimeElement>("time[data-ago]")) {
    const moment = Date.parse(element.dateTime);
    const text = ago(moment, now);
    if (element.textContent !== text) element.textContent = text;
    if (!element.dataset.zoned) {
      element.title = absolute.format(moment);
      element.dataset.zoned = "1";
    }
  }
  // Something that still runs counts up; the server gives its beginning.
  for (const element of document.querySelectorAll<HTMLElement>("[data-since]")) {
    element.textContent = span((now - Date.parse(element.dataset.since ?? "")) / 1000);
  }
}

/** Keep all times of the page fresh. */
export function startTimes(): void {
  refresh();
  setInterval(refresh, 1000);
  document.body.addEventListener("htmx:afterSwap", refresh);
}
