'use strict';
{
  // The windows over the page. The browser keeps the focus inside and gives it back; Esc closes.
  const { byId } = seedream;

  for (const dialog of document.querySelectorAll('dialog')) {
    dialog.addEventListener('click', (event) => {
      const act = event.target.closest('[data-act]');
      if (event.target === dialog || (act && act.dataset.act === 'close')) dialog.close();
    });
  }

  seedream.windows = {
    open(id) {
      byId(id).showModal();
    },

    close(id) {
      byId(id).close();
    },

    // The one that is open, if any.
    get shown() {
      return document.querySelector('dialog[open]');
    },

    // What the buttons of a window do, by their data-act.
    acts(id, acts) {
      byId(id).addEventListener('click', (event) => {
        const button = event.target.closest('[data-act]');
        if (button && acts[button.dataset.act]) acts[button.dataset.act](button);
      });
    },
  };
}
