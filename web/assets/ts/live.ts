// Server-sent events of a page: they name what changed, and whoever shows it fetches that part again.
//
// The body's `data-events` is the stream's address. An event `changed` carries topics; each becomes a
// DOM event `cy:TOPIC` on the body, for `hx-trigger="cy:TOPIC from:body"` and for islands. While the
// tab is hidden the stream is closed: browsers allow six connections to a host, and nobody looks.

/** Milliseconds without any event after which the page counts as stale; the server pings every 10 s. */
const SILENCE = 25_000;

function show(state: "live" | "stale" | "ended"): void {
  for (const element of document.querySelectorAll<HTMLElement>("[data-live]")) {
    if (element.dataset.state === state) continue;
    element.dataset.state = state;
    element.textContent = { live: "Live", stale: "Not live, reconnecting…", ended: "Finished" }[state];
  }
}

export function startLive(): void {
  const address = document.body.dataset.events;
  if (!address) return;
  let source: EventSource | null = null;
  let silence = 0;

  const heard = (): void => {
    show("live");
    clearTimeout(silence);
    silence = window.setTimeout(reopen, SILENCE);
  };
  const announce = (topic: string, detail: unknown): void => {
    document.body.dispatchEvent(new CustomEvent(`cy:${topic}`, { detail }));
  };
  const open = (): void => {
    source = new EventSource(address);
    source.addEventListener("open", heard);
    source.addEventListener("ping", heard);
    source.addEventListener("changed", (event) => {
      heard();
      for (const topic of JSON.parse(event.data).topics) announce(topic, null);
    });
    source.addEventListener("picture", (event) => {
      heard();
      announce("picture", JSON.parse(event.data));
    });
    source.addEventListener("lines", (event) => {
      heard();
      announce("lines", JSON.parse(event.data));
    });
    source.addEventListener("go", () => location.reload());
    source.addEventListener("end", () => {
      close();
      show("ended");
    });
    source.addEventListener("error", () => {
      show("stale");
      // A refused stream (signed out, gone) is not retried by the browser: try again slowly.
      if (source?.readyState === EventSource.CLOSED) {
        clearTimeout(silence);
        silence = window.setTimeout(reopen, 5000);
      }
    });
  };
  const close = (): void => {
    clearTimeout(silence);
    source?.close();
    source = null;
  };
  const reopen = (): void => {
    close();
    show("stale");
    open();
  };

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) close();
    else if (!source) {
      open();
      // What happened meanwhile was not heard: everything that is live fetches itself again.
      announce("all", null);
    }
  });
  addEventListener("pagehide", close);
  open();
}
