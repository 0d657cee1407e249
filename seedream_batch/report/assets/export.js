'use strict';
{
  // The choice as a file that the command line reads.
  const { el, byId, data, marks, words, windows } = seedream;
  const area = byId('export-json');
  let items = [];

  function chosen(mark) {
    return items
      .filter((item) => item.state === 'stored' && marks.of(item) === mark)
      .map((item) => ({ fingerprint: item.task.fingerprint, index: item.index, sha256: item.sha256 }));
  }

  function list(entries) {
    return entries.length ? `[\n${entries.map((entry) => `    ${JSON.stringify(entry)}`).join(',\n')}\n  ]` : '[]';
  }

  // One image a line, so that two choices can be compared as texts.
  function text() {
    const parts = [
      '"seedream_batch_choice": 1',
      `"job": ${JSON.stringify(data.job.job)}`,
      `"keep": ${list(chosen('keep'))}`,
      `"reject": ${list(chosen('reject'))}`,
    ];
    return `{\n  ${parts.join(',\n  ')}\n}\n`;
  }

  function fill() {
    const kept = chosen('keep').length;
    byId('export-text').textContent = `${words.number(kept)} kept, ${words.count(chosen('reject').length, 'image')} rejected.`;
    area.value = text();
  }

  function download() {
    const url = URL.createObjectURL(new Blob([area.value], { type: 'application/json' }));
    const link = el('a', { href: url, download: `${data.job.job}-choice.json` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 1000);
  }

  windows.acts('export', {
    download,
    copy: (button) => seedream.copy(area.value, button),
    forget: () => {
      marks.forget();
      windows.close('export');
    },
  });

  seedream.choice = {
    open(all) {
      items = all;
      fill();
      windows.open('export');
    },
  };
}
