'use strict';
{
  // What a state is called here, and how grave it is. The sign stands beside the word, so that no state is shown by its
  // colour alone.
  const states = {
    stored: { word: 'stored', kind: 'good', sign: '✓' },
    planned: { word: 'not generated yet', kind: 'idle', sign: '○' },
    submitting: { word: 'submitting', kind: 'busy', sign: '◔' },
    accepted: { word: 'in flight', kind: 'busy', sign: '◑' },
    succeeded: { word: 'generated', kind: 'busy', sign: '◕' },
    announced: { word: 'to download', kind: 'busy', sign: '↓' },
    uncertain: { word: 'uncertain', kind: 'warn', sign: '?' },
    failed: { word: 'failed', kind: 'bad', sign: '✕' },
    lost: { word: 'lost', kind: 'bad', sign: '✕' },
    rejected: { word: 'invalid image', kind: 'bad', sign: '✕' },
    expired: { word: 'link expired', kind: 'bad', sign: '✕' },
    missing: { word: 'missing', kind: 'bad', sign: '✕' },
  };

  const moment = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'medium' });

  seedream.words = {
    state(name) {
      return states[name] || { word: name, kind: 'idle', sign: '○' };
    },

    number(value) {
      return value.toLocaleString('en');
    },

    count(number, one) {
      return `${seedream.words.number(number)} ${number === 1 ? one : one + 's'}`;
    },

    usd(value) {
      return `${value.toLocaleString('en', { minimumFractionDigits: 2, maximumFractionDigits: 6 })} USD`;
    },

    bytes(value) {
      const units = ['B', 'KB', 'MB', 'GB'];
      let at = 0;
      while (value >= 1000 && at < units.length - 1) {
        value /= 1000;
        at += 1;
      }
      return `${at && value < 100 ? value.toFixed(1) : Math.round(value)} ${units[at]}`;
    },

    time(seconds) {
      return moment.format(new Date(seconds * 1000));
    },

    duration(seconds) {
      if (seconds < 60) return `${seconds.toFixed(1)}\u00a0s`;
      const minutes = Math.floor(seconds / 60);
      if (minutes < 60) return `${minutes} min ${Math.round(seconds % 60)} s`;
      return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
    },
  };
}
