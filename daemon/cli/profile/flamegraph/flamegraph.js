'use strict';
(() => {
  const inner = 1180, margin = 10, character = 6.6;
  const boxes = [...document.querySelectorAll('.box')];
  const status = document.getElementById('status');
  const extent = (box) => [Number(box.dataset.x), Number(box.dataset.w), Number(box.dataset.d)];
  const shorten = (text, width) => {
    const n = Math.floor((width - 6) / character);
    if (n < 3) return '';
    return text.length <= n ? text : `${text.slice(0, n - 2)}..`;
  };

  // Shows only what overlaps a box, as wide as the drawing; boxes above it are its callers.
  const zoom = (to) => {
    const [from, width, depth] = extent(to);
    for (const box of boxes) {
      const [x, w, d] = extent(box);
      const overlaps = x < from + width - 1e-7 && x + w > from + 1e-7;
      box.classList.toggle('out', !overlaps);
      box.classList.toggle('up', overlaps && d < depth);
      if (!overlaps) continue;
      const left = Math.max((x - from) / width, 0);
      const right = Math.min((x + w - from) / width, 1);
      const [rect, text] = [box.querySelector('rect'), box.querySelector('text')];
      rect.setAttribute('x', margin + left * inner);
      rect.setAttribute('width', (right - left) * inner);
      text.setAttribute('x', margin + left * inner + 3);
      text.textContent = shorten(text.dataset.n, (right - left) * inner);
    }
  };

  const search = (wanted) => {
    const text = (wanted || '').toLowerCase();
    let share = 0, end = 0;
    const hits = boxes.filter((box) => {
      const hit = text !== '' && box.querySelector('title').textContent.toLowerCase().includes(text);
      box.classList.toggle('hit', hit);
      return hit;
    });
    hits.map(extent).sort((a, b) => a[0] - b[0] || b[1] - a[1]).forEach(([x, w]) => {
      if (x < end - 1e-7) return; // it is below another hit
      share += w;
      end = x + w;
    });
    status.textContent = text === '' ? '' : `${wanted}: ${(100 * share).toFixed(1)} % in ${hits.length} boxes`;
  };

  boxes.forEach((box) => box.addEventListener('click', () => zoom(box)));
  document.getElementById('search').addEventListener('click', () => search(prompt('Part of a function or a file:')));
  document.getElementById('reset').addEventListener('click', () => {
    search('');
    zoom(boxes[0]);
  });
})();
