'use strict';
{
  // The course of the runs: how many were submitted, ended and stored, and what it cost, with pauses left out.
  const { el, byId, data, words, windows } = seedream;
  const LEFT = 56;
  const RIGHT = 12;
  const COUNTS = ['submitted', 'ended', 'stored'];

  const MINUTE = { month: 'short', day: 'numeric', hour: '2-digit', minute: '2-digit' };
  const begun = new Intl.DateTimeFormat(undefined, MINUTE);

  function svg(tag, attributes, ...children) {
    const node = document.createElementNS('http://www.w3.org/2000/svg', tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children);
    return node;
  }

  // Where each run stands: as wide as it was long, but wide enough to be seen.
  function places(runs, wide) {
    const room = wide - LEFT - RIGHT;
    const lengths = runs.map((points) => points[points.length - 1][0] - points[0][0]);
    const whole = lengths.reduce((sum, one) => sum + one, 0) || 1;
    const shares = lengths.map((one) => Math.max(one / whole, 0.04));
    const sum = shares.reduce((all, one) => all + one, 0);
    let left = LEFT;
    return shares.map((share) => {
      const place = [left, (room * share) / sum];
      left += place[1];
      return place;
    });
  }

  function xOf(points, [left, width], time) {
    const first = points[0][0];
    return left + ((time - first) / (points[points.length - 1][0] - first || 1)) * width;
  }

  function path(runs, at, column, y) {
    let text = '';
    runs.forEach((points, run) => {
      for (const point of points) {
        text += `${text ? 'L' : 'M'}${xOf(points, at[run], point[0]).toFixed(1)} ${y(point[column]).toFixed(1)}`;
      }
    });
    return text;
  }

  // One drawing with lines for some columns of the points.
  function plot(runs, wide, columns, height, label, text) {
    const at = places(runs, wide);
    const last = runs[runs.length - 1][runs[runs.length - 1].length - 1];
    const most = Math.max(...columns.map(([, column]) => last[column])) || 1;
    const bottom = height - 22;
    const y = (value) => bottom - (value / most) * (bottom - 10);
    const drawing = svg('svg', { class: 'plot', viewBox: `0 0 ${wide} ${height}`, role: 'img', 'aria-label': text });
    for (const part of [0, 0.5, 1]) {
      const line = y(most * part);
      drawing.append(
        svg('path', { class: 'rule', d: `M${LEFT} ${line}H${wide - RIGHT}` }),
        svg('text', { x: LEFT - 8, y: line + 4, 'text-anchor': 'end' }, label(most * part)),
      );
    }
    at.forEach(([left, width], run) => {
      if (run) drawing.append(svg('path', { class: 'pause', d: `M${left} 6V${bottom}` }));
      if (width > 110 || run === 0) {
        const when = new Date(runs[run][0][0] * 1000);
        drawing.append(svg('text', { x: left + 2, y: height - 5 }, begun.format(when)));
      }
    });
    for (const [name, column] of columns) drawing.append(svg('path', { class: name, d: path(runs, at, column, y) }));
    return drawing;
  }

  function legend() {
    return el(
      'div',
      { class: 'legend', 'aria-hidden': 'true' },
      ...COUNTS.map((name) => {
        const line = svg('path', { class: name, d: 'M0 5H30' });
        return el('span', null, svg('svg', { class: 'plot', viewBox: '0 0 30 10' }, line), name);
      }),
    );
  }

  // The same as figures: the end of each run.
  function figures(runs) {
    const names = ['Run until', 'Submitted', 'Ended', 'Stored', 'USD in total'];
    const rows = runs.map((points) => points[points.length - 1]);
    return el(
      'table',
      { class: 'figures' },
      el('thead', null, el('tr', null, ...names.map((name) => el('th', { scope: 'col' }, name)))),
      el(
        'tbody',
        null,
        ...rows.map(([time, ...values]) =>
          el('tr', null, el('td', null, words.time(time)), ...values.map((value) => el('td', null, String(value)))),
        ),
      ),
    );
  }

  function draw() {
    const runs = data.job.timeline;
    const body = byId('chart-body');
    const wide = Math.max(280, body.clientWidth);
    if (!runs.length) {
      body.replaceChildren(el('p', null, 'No tasks submitted yet.'));
      return;
    }
    const [time, submitted, ended, stored, cost] = runs[runs.length - 1][runs[runs.length - 1].length - 1];
    const when = `In ${words.count(runs.length, 'run')} until ${words.time(time)}`;
    const counts = [submitted, ended, stored].map((count, place) => `${words.number(count)} ${COUNTS[place]}`);
    const summary = `${when}: ${counts.join(', ')}, ${words.usd(cost)}.`;
    body.replaceChildren(
      el('p', null, `${summary} Pauses between runs are not shown.`),
      el('p', { class: 'chart-title' }, 'Tasks submitted and ended, images stored'),
      legend(),
      plot(runs, wide, COUNTS.map((name, at) => [name, at + 1]), 260, (value) => String(Math.round(value)), summary),
      el('p', { class: 'chart-title' }, 'Cost in USD'),
      plot(runs, wide, [['cost', 4]], 160, (value) => value.toFixed(2), `Total cost: ${words.usd(cost)}.`),
      el('p', { class: 'chart-title' }, 'Numbers'),
      figures(runs),
    );
  }

  byId('open-chart').addEventListener('click', () => {
    windows.open('chart');
    draw();
  });
}
