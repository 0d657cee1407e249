'use strict';
{
  // The data come as scripts that call the functions below: a page from the disk may load scripts, not read files.
  const AT_ONCE = 4;

  let job = null;
  const grid = new Map();
  const details = new Map();

  function load(name) {
    return new Promise((done, failed) => {
      const script = document.createElement('script');
      script.src = `data/${name}`;
      script.onload = () => {
        script.remove();
        done();
      };
      script.onerror = () => {
        script.remove();
        failed(new Error(`${name} no longer exists because the gallery was updated. Reload the page.`));
      };
      document.head.append(script);
    });
  }

  // One item for each image, or for each task that has none. Items of one task share it.
  function unpack(chunk, first, items) {
    chunk.tasks.forEach(([fingerprint, sample, values, prompt, size, ids, tiles], at) => {
      const task = { number: first + at, fingerprint, sample, values, prompt: chunk.prompts[prompt], size, ids };
      for (const [index, state, path, reason, sha256, width, height] of tiles) {
        items.push({
          task,
          index,
          state,
          path,
          reason,
          sha256: sha256 || '',
          width: width || 0,
          height: height || 0,
          of: tiles.length,
          id: `${fingerprint}:${index}`,
          place: null,
        });
      }
    });
  }

  Object.assign(seedream, {
    // Called by data/index.js.
    begin(index) {
      job = index;
    },

    // Called by data/cells-*.js.
    cells(number, chunk) {
      grid.set(number, chunk);
    },

    // Called by data/details-*.js.
    details(number, records) {
      details.set(number, records);
    },
  });

  seedream.data = {
    get job() {
      return job;
    },

    // All items, in the order of the job.
    async items() {
      const items = [];
      let first = 0;
      for (let at = 0; at < job.grid.length; at += AT_ONCE) {
        await Promise.all(job.grid.slice(at, at + AT_ONCE).map(load));
        for (let number = at; number < Math.min(at + AT_ONCE, job.grid.length); number += 1) {
          const chunk = grid.get(number);
          unpack(chunk, first, items);
          first += chunk.tasks.length;
          grid.delete(number);
        }
      }
      return items;
    },

    // What only a closer look needs of a task.
    async detail(task) {
      const number = Math.floor(task.number / job.details_each);
      if (!details.has(number)) await load(job.details[number]);
      return details.get(number)[task.number % job.details_each];
    },

    thumbnail(item) {
      const name = item.sha256.slice(0, 24);
      return `thumbs/${name.slice(0, 2)}/${name}.webp`;
    },

    // What is shown of it: a page that asks no network shows the thumbnail of what is not on this machine.
    shown(item) {
      return job.elsewhere ? this.thumbnail(item) : this.picture(item);
    },

    picture(item) {
      return job.images + item.path.split('/').map(encodeURIComponent).join('/');
    },

    // The number of an item's value on an axis; behind all others where it has none.
    value(axis, item) {
      const value = item.task.values[axis];
      return value === undefined || value < 0 ? Infinity : value;
    },

    // The axes that tell something: with one sample of each cell, its number says nothing.
    get telling() {
      const { axes } = job;
      return [...axes.keys()].filter((axis) => axes[axis].name !== 'sample' || axes[axis].values.length > 1);
    },

    // What an item is, in the words of its axes.
    labels(item) {
      return seedream.data.telling.map((axis) => seedream.data.word(axis, seedream.data.value(axis, item)));
    },

    // What a value is called.
    word(axis, value) {
      return job.axes[axis].values[value] ?? '—';
    },
  };
}
