'use strict';
{
  // Light or dark: as the system has it, until somebody chooses.
  const NAME = 'seedream-batch theme';
  const button = seedream.byId('theme');
  const dark = matchMedia('(prefers-color-scheme: dark)');
  const root = document.documentElement;

  function stored() {
    try {
      return localStorage.getItem(NAME) || '';
    } catch {
      return '';
    }
  }

  function showTheme() {
    const now = root.dataset.theme || (dark.matches ? 'dark' : 'light');
    button.textContent = now === 'dark' ? 'Light' : 'Dark';
    return now;
  }

  const chosen = stored();
  if (chosen) root.dataset.theme = chosen;
  showTheme();
  dark.addEventListener('change', showTheme);
  button.addEventListener('click', () => {
    root.dataset.theme = showTheme() === 'dark' ? 'light' : 'dark';
    showTheme();
    try {
      localStorage.setItem(NAME, root.dataset.theme);
    } catch {
      // Then it is asked for again the next time.
    }
  });
}
