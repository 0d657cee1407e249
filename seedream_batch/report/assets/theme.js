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

  function told() {
    const now = root.dataset.theme || (dark.matches ? 'dark' : 'light');
    button.textContent = now === 'dark' ? 'Light' : 'Dark';
    return now;
  }

  const chosen = stored();
  if (chosen) root.dataset.theme = chosen;
  told();
  dark.addEventListener('change', told);
  button.addEventListener('click', () => {
    root.dataset.theme = told() === 'dark' ? 'light' : 'dark';
    told();
    try {
      localStorage.setItem(NAME, root.dataset.theme);
    } catch {
      // Then it is asked for again the next time.
    }
  });
}
