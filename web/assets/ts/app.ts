// What every page loads: partial updates, times, copying, dialogs, menus, the palette, liveness.
import htmx from "htmx.org";
import { startCopying } from "./copy";
import { startDialogs } from "./dialogs";
import { startLive } from "./live";
import { startPalette } from "./palette";
import { startThemes } from "./themes";
import { startTimes } from "./times";
import { toast } from "./toasts";

// No inline styles and no evaluated attributes: the content security policy forbids both.
htmx.config.includeIndicatorStyles = false;
htmx.config.allowEval = false;
htmx.config.allowScriptTags = false;
htmx.config.selfRequestsOnly = true;
htmx.config.historyCacheSize = 0;
htmx.config.scrollBehavior = "auto";

startTimes();
startCopying();
startDialogs();
startThemes();
startPalette();
startLive();

// A partial update that fails says so: the error's sentence, its next step and its id.
document.body.addEventListener("htmx:responseError", (event) => {
  const request = (event as CustomEvent<{ xhr: XMLHttpRequest }>).detail.xhr;
  let sentence = "The page could not be updated.";
  let next = "Reload it and try again.";
  let id = "";
  try {
    const { error } = JSON.parse(request.responseText);
    [sentence, next, id] = [error.message, error.next, error.id];
  } catch {
    // Not an error of the catalogue: the general sentence stands.
  }
  toast("bad", sentence, next, id);
});
document.body.addEventListener("htmx:sendError", () => {
  toast("bad", "The platform can't be reached.", "What you see may be out of date; it is tried again.", "");
});
