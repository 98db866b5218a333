// Light, dark or as the system says; kept in a cookie so that the server renders the right one at once.
export function startThemes(): void {
  document.addEventListener("click", (event) => {
    const button = (event.target as Element).closest<HTMLElement>("[data-theme-set]");
    if (!button) return;
    const theme = button.dataset.themeSet ?? "auto";
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    document.cookie = `cy_theme=${theme}; path=/; max-age=31536000; samesite=lax`;
    for (const other of document.querySelectorAll<HTMLElement>("[data-theme-set]")) {
      other.setAttribute("aria-pressed", String(other === button));
    }
  });
}
