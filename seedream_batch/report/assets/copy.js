'use strict';
{
  // The clipboard, in the new way or in the old one: not every browser gives the new one to a page from the disk.
  const { el } = seedream;

  function oldWay(text, near) {
    const area = el('textarea', { value: text, class: 'unseen', 'aria-hidden': 'true' });
    near.append(area);
    area.select();
    const done = document.execCommand('copy');
    area.remove();
    return done;
  }

  // Copies a text, and says so on the button.
  seedream.copy = async function copy(text, button) {
    let done = false;
    try {
      await navigator.clipboard.writeText(text);
      done = true;
    } catch {
      done = oldWay(text, button.parentElement);
      button.focus();
    }
    const before = button.textContent;
    button.textContent = done ? 'Copied' : 'Not allowed';
    seedream.say(done ? 'copied' : 'the browser does not allow copying');
    setTimeout(() => (button.textContent = before), 1200);
    return done;
  };

  seedream.copyButton = function copyButton(what, text) {
    const onclick = (event) => seedream.copy(text, event.currentTarget);
    return el('button', { type: 'button', class: 'copy', 'aria-label': `Copy ${what}`, onclick }, 'Copy');
  };
}
