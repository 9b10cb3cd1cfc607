// Texts whose contrast is below WCAG 2.2, 1.4.3 (AA): 4.5 to 1, or 3 to 1 for large text. Returns
// the number of texts that were looked at, and a line for each that is too faint.
(root) => {
  const parse = (css) => {
    const numbers = css.match(/[\d.]+(?:e-?\d+)?/g);
    if (!/^rgba?\(/.test(css) || numbers === null) {
      throw new Error(`a colour that is not understood: ${css}`);
    }
    const [r, g, b, a = 1] = numbers.map(Number);
    return { r, g, b, a };
  };
  const over = (top, below) => ({
    r: top.r * top.a + below.r * (1 - top.a),
    g: top.g * top.a + below.g * (1 - top.a),
    b: top.b * top.a + below.b * (1 - top.a),
    a: 1,
  });
  const channel = (value) => {
    const part = value / 255;
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  };
  const luminance = ({ r, g, b }) =>
    0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const ratio = (one, other) => {
    const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };

  // What lies behind an element, and the element's text on it: each layer with its opacity.
  const painted = (element, style) => {
    const chain = [];
    for (let each = element; each !== null; each = each.parentElement) {
      chain.unshift(each);
    }
    const dark = getComputedStyle(document.documentElement).colorScheme.includes("dark");
    let back = dark ? { r: 18, g: 18, b: 18, a: 1 } : { r: 255, g: 255, b: 255, a: 1 };
    let opacity = 1;
    for (const each of chain) {
      const its = getComputedStyle(each);
      opacity *= Number(its.opacity);
      const layer = parse(its.backgroundColor);
      back = over({ ...layer, a: layer.a * opacity }, back);
    }
    const text = parse(style.color);
    return [over({ ...text, a: text.a * opacity }, back), back];
  };

  const texts = [];
  const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode;
    const range = document.createRange();
    range.selectNodeContents(node);
    const box = range.getBoundingClientRect();
    const element = node.parentElement;
    // What only screen readers have is not seen.
    if (element.closest(".visually-hidden") === null && node.data.trim() && box.width > 1 && box.height > 1 && element.checkVisibility({ visibilityProperty: true })) {
      texts.push([element, node.data.trim()]);
    }
  }
  for (const field of root.querySelectorAll("input:not([type=radio], [type=checkbox], [type=hidden]), textarea, select")) {
    if (field.checkVisibility({ visibilityProperty: true })) {
      texts.push([field, field.value || field.name]);
    }
  }

  const faint = [];
  for (const [element, text] of texts) {
    const style = getComputedStyle(element);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    const found = ratio(...painted(element, style));
    if (found < (large ? 3 : 4.5)) {
      faint.push(`${found.toFixed(2)} <${element.localName} class="${element.className}"> ${text.slice(0, 60)}`);
    }
  }
  return [texts.length, faint];
}
