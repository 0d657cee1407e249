'use strict';
{
  // What a person marked. It is kept in this browser where that works, by the SHA-256 of the image: another picture of
  // the same cell is a new one to judge.
  let name = '';
  let marks = new Map();
  const compared = new Set();
  const listeners = [];

  function store() {
    try {
      localStorage.setItem(name, JSON.stringify([...marks]));
    } catch {
      // Not every browser lets a page from the disk keep something; the marks then last as long as the page.
    }
  }

  function changed(item) {
    listeners.forEach((listener) => listener(item));
  }

  seedream.marks = {
    KEEP: 'keep',
    REJECT: 'reject',

    open(job) {
      name = `seedream-batch choice ${job.id}`;
      try {
        marks = new Map(JSON.parse(localStorage.getItem(name) || '[]'));
      } catch {
        marks = new Map();
      }
    },

    listen(listener) {
      listeners.push(listener);
    },

    of(item) {
      const mark = item.sha256 && marks.get(item.id);
      return mark && mark[1] === item.sha256 ? mark[0] : '';
    },

    // Only what is there can be kept or rejected.
    set(item, mark) {
      if (item.state !== 'stored') {
        seedream.say(`${item.path} is not stored, so it cannot be marked`);
        return;
      }
      if (mark) marks.set(item.id, [mark, item.sha256]);
      else marks.delete(item.id);
      store();
      seedream.say(`${item.path}: ${mark === 'keep' ? 'kept' : mark === 'reject' ? 'rejected' : 'unmarked'}`);
      changed(item);
    },

    forget() {
      marks.clear();
      compared.clear();
      store();
      changed(null);
    },

    compares(item) {
      return compared.has(item);
    },

    toggleCompare(item) {
      if (item.state !== 'stored') {
        seedream.say(`${item.path} is not stored, so it cannot be compared`);
        return;
      }
      if (!compared.delete(item)) compared.add(item);
      seedream.say(`${item.path}: ${compared.has(item) ? 'marked for comparison' : 'unmarked'}`);
      changed(item);
    },

    compareNone() {
      compared.clear();
      changed(null);
    },

    get compared() {
      return [...compared];
    },
  };
}
