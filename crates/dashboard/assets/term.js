// A terminal: what a shell prints becomes lines of styled text, what is typed is posted to it. Speaks the part of
// xterm's language that shells, editors and pagers use.

const COLOURS = ["#3b4252", "#e06c75", "#8fce7e", "#e5c07b", "#6ea8fe", "#c792ea", "#66c8d4", "#d8dee9",
  "#6b7589", "#ff8b94", "#b4e6a2", "#f5d99a", "#9cc4ff", "#ddb6f7", "#9be3ea", "#ffffff"];
const SCROLLBACK = 3000;

/** The colour of a number of the table of 256. */
function indexed(n) {
  if (n < 16) return COLOURS[n];
  if (n >= 232) { const g = 8 + (n - 232) * 10; return `rgb(${g},${g},${g})`; }
  const level = (v) => (v ? 55 + v * 40 : 0);
  n -= 16;
  return `rgb(${level(Math.floor(n / 36))},${level(Math.floor(n / 6) % 6)},${level(n % 6)})`;
}

/** Columns that a character takes. */
function width(c) {
  const p = c.codePointAt(0);
  if (/\p{Mn}|\p{Me}|\p{Cf}/u.test(c)) return 0;
  return (p >= 0x1100 && p <= 0x115f) || (p >= 0x2e80 && p <= 0xa4cf) || (p >= 0xac00 && p <= 0xd7a3) || (p >= 0xf900 && p <= 0xfaff) ||
    (p >= 0xfe30 && p <= 0xfe6f) || (p >= 0xff00 && p <= 0xff60) || (p >= 0x1f300 && p <= 0x1faff) || (p >= 0x20000 && p <= 0x3fffd) ? 2 : 1;
}

const PLAIN = Object.freeze({});

/** The screen of a terminal: cells, a cursor, and what is above. */
export class Screen {
  constructor(rows, cols) {
    Object.assign(this, { rows, cols, above: [], dropped: 0, answers: [], bracketed: false, keypad: false, shown: true, title: "" });
    this.reset();
    this.state = this.ground;
  }

  reset() {
    this.lines = Array.from({ length: this.rows }, () => []);
    Object.assign(this, { x: 0, y: 0, top: 0, bottom: this.rows - 1, style: PLAIN, saved: null, other: null, wrap: false });
  }

  resize(rows, cols) {
    while (this.lines.length > rows) {
      if (this.y < this.lines.length - 1 && !this.lines.at(-1).length) this.lines.pop();
      else { const line = this.lines.shift(); if (!this.other) this.above.push(line); this.y = Math.max(0, this.y - 1); }
    }
    while (this.lines.length < rows) this.lines.push([]);
    Object.assign(this, { rows, cols, top: 0, bottom: rows - 1, x: Math.min(this.x, cols - 1), y: Math.min(this.y, rows - 1) });
  }

  write(text) { for (const c of text) this.state(c); }

  ground(c) {
    const p = c.codePointAt(0);
    if (p >= 32 && p !== 127) return this.put(c);
    if (c === "\x1b") this.state = this.escape;
    else if (c === "\n" || c === "\v" || c === "\f") this.feed();
    else if (c === "\r") { this.x = 0; this.wrap = false; }
    else if (c === "\b") { this.x = Math.max(0, this.x - 1); this.wrap = false; }
    else if (c === "\t") this.x = Math.min(this.cols - 1, (this.x & ~7) + 8);
  }

  escape(c) {
    this.state = this.ground;
    switch (c) {
      case "[": this.args = ""; this.state = this.control; break;
      case "]": this.args = ""; this.state = this.command; break;
      case "P": case "_": case "^": this.args = ""; this.state = this.string; break;
      case "(": case ")": case "*": case "+": case "#": case "%": this.state = () => { this.state = this.ground; }; break;
      case "7": this.save(); break;
      case "8": this.restore(); break;
      case "D": this.feed(); break;
      case "E": this.x = 0; this.feed(); break;
      case "M": if (this.y === this.top) this.scroll(-1); else this.y = Math.max(0, this.y - 1); break;
      case "c": this.forget(this.above.length); this.reset(); break;
    }
  }

  command(c) {
    if (c === "\x07" || c === "\x1b") {
      const [kind, text] = [this.args.split(";")[0], this.args.slice(this.args.indexOf(";") + 1)];
      if (kind === "0" || kind === "2") this.title = text;
      this.state = c === "\x1b" ? () => { this.state = this.ground; } : this.ground;
    } else if (this.args.length < 4096) this.args += c;
  }

  string(c) { if (c === "\x1b") this.state = () => { this.state = this.ground; }; else if (c === "\x07") this.state = this.ground; }

  control(c) {
    if (c < "@" || c > "~") {
      if (c === "\x1b") this.state = this.escape;
      else if (c < " ") this.ground(c);
      else if (this.args.length < 256) this.args += c;
      return;
    }
    this.state = this.ground;
    const mark = /^[?>=!]/.test(this.args) ? this.args[0] : "";
    const n = this.args.replace(/^[?>=!]/, "").split(/[;:]/).map((v) => parseInt(v, 10));
    const one = Math.max(1, n[0] || 1), line = this.lines[this.y];
    if (mark === "?") { if (c === "h" || c === "l") n.forEach((m) => this.mode(m, c === "h")); return; }
    if (mark) { if (mark === ">" && c === "c") this.answers.push("\x1b[>0;10;1c"); return; }
    this.wrap = false;
    switch (c) {
      case "A": this.y = Math.max(this.y >= this.top ? this.top : 0, this.y - one); break;
      case "B": case "e": this.y = Math.min(this.y <= this.bottom ? this.bottom : this.rows - 1, this.y + one); break;
      case "C": case "a": this.x = Math.min(this.cols - 1, this.x + one); break;
      case "D": this.x = Math.max(0, this.x - one); break;
      case "E": this.x = 0; this.y = Math.min(this.rows - 1, this.y + one); break;
      case "F": this.x = 0; this.y = Math.max(0, this.y - one); break;
      case "G": case "`": this.x = Math.min(this.cols - 1, one - 1); break;
      case "d": this.y = Math.min(this.rows - 1, one - 1); break;
      case "H": case "f": this.y = Math.min(this.rows - 1, one - 1); this.x = Math.min(this.cols - 1, Math.max(1, n[1] || 1) - 1); break;
      case "J": this.erase(n[0] || 0); break;
      case "K": this.eraseLine(line, n[0] || 0); break;
      case "X": for (let i = this.x; i < Math.min(this.cols, this.x + one); i++) this.cell(line, i, " "); break;
      case "P": line.splice(this.x, one); break;
      case "@": this.pad(line, this.x); line.splice(this.x, 0, ...Array.from({ length: one }, () => [" ", this.style])); line.length = Math.min(line.length, this.cols); break;
      case "L": case "M": {
        if (this.y < this.top || this.y > this.bottom) break;
        for (let i = 0; i < Math.min(one, this.rows); i++) {
          if (c === "L") { this.lines.splice(this.bottom, 1); this.lines.splice(this.y, 0, []); }
          else { this.lines.splice(this.y, 1); this.lines.splice(this.bottom, 0, []); }
        }
        break;
      }
      case "S": this.scroll(one); break;
      case "T": this.scroll(-one); break;
      case "m": this.paint(n); break;
      case "r": this.top = Math.max(0, (n[0] || 1) - 1); this.bottom = Math.min(this.rows, n[1] || this.rows) - 1; if (this.top >= this.bottom) { this.top = 0; this.bottom = this.rows - 1; } this.x = this.y = 0; break;
      case "s": this.save(); break;
      case "u": this.restore(); break;
      case "n": if (n[0] === 6) this.answers.push(`\x1b[${this.y + 1};${this.x + 1}R`); else if (n[0] === 5) this.answers.push("\x1b[0n"); break;
      case "c": this.answers.push("\x1b[?1;2c"); break;
    }
  }

  mode(m, on) {
    if (m === 25) this.shown = on;
    else if (m === 1) this.keypad = on;
    else if (m === 2004) this.bracketed = on;
    else if (m === 47 || m === 1047 || m === 1049) {
      if (on && !this.other) {
        this.other = { lines: this.lines, x: this.x, y: this.y };
        this.lines = Array.from({ length: this.rows }, () => []);
      } else if (!on && this.other) {
        const { lines, x, y } = this.other;
        this.other = null;
        this.lines = lines;
        this.resize(this.rows, this.cols);
        Object.assign(this, { x: Math.min(x, this.cols - 1), y: Math.min(y, this.rows - 1) });
      }
      this.top = 0; this.bottom = this.rows - 1;
    }
  }

  save() { this.saved = { x: this.x, y: this.y, style: this.style }; }
  restore() { if (this.saved) Object.assign(this, this.saved); }
  pad(line, to) { while (line.length < to) line.push([" ", PLAIN]); }
  cell(line, x, c) { this.pad(line, x); line[x] = [c, this.style]; }

  put(c) {
    const w = width(c);
    if (w === 0) { const line = this.lines[this.y], at = this.x - (this.wrap ? 0 : 1); if (line[at]) line[at] = [line[at][0] + c, line[at][1]]; return; }
    if (this.wrap || this.x + w > this.cols) { this.x = 0; this.feed(); this.wrap = false; }
    const line = this.lines[this.y];
    this.cell(line, this.x, c);
    if (w === 2) this.cell(line, this.x + 1, "");
    this.x += w;
    if (this.x >= this.cols) { this.x = this.cols - 1; this.wrap = true; }
  }

  feed() {
    if (this.y === this.bottom) this.scroll(1);
    else this.y = Math.min(this.rows - 1, this.y + 1);
  }

  scroll(n) {
    for (let i = 0; i < Math.min(Math.abs(n), this.rows); i++) {
      if (n > 0) {
        const [line] = this.lines.splice(this.top, 1);
        this.lines.splice(this.bottom, 0, []);
        if (this.top === 0 && !this.other) this.above.push(line);
      } else {
        this.lines.splice(this.bottom, 1);
        this.lines.splice(this.top, 0, []);
      }
    }
    if (this.above.length > SCROLLBACK) this.forget(this.above.length - SCROLLBACK);
  }

  /** Lines that scrolled away long ago. */
  forget(n) { this.above.splice(0, n); this.dropped += n; }

  erase(how) {
    if (how === 3) { this.forget(this.above.length); return; }
    if (how === 0) { this.eraseLine(this.lines[this.y], 0); for (let i = this.y + 1; i < this.rows; i++) this.lines[i] = []; }
    if (how === 1) { this.eraseLine(this.lines[this.y], 1); for (let i = 0; i < this.y; i++) this.lines[i] = []; }
    if (how === 2) for (let i = 0; i < this.rows; i++) this.lines[i] = [];
  }

  eraseLine(line, how) {
    const plain = !this.style.bg;
    if (how === 0 && plain) line.length = Math.min(line.length, this.x);
    else if (how === 2 && plain) line.length = 0;
    else for (let i = how === 0 ? this.x : 0; i < (how === 1 ? this.x + 1 : this.cols); i++) this.cell(line, i, " ");
  }

  paint(n) {
    let s = { ...this.style };
    for (let i = 0; i < n.length; i++) {
      const v = n[i] || 0;
      if (v === 0) s = {};
      else if (v === 1) s.b = 1;
      else if (v === 2) s.d = 1;
      else if (v === 3) s.i = 1;
      else if (v === 4) s.u = 1;
      else if (v === 7) s.r = 1;
      else if (v === 22) { delete s.b; delete s.d; }
      else if (v === 23) delete s.i;
      else if (v === 24) delete s.u;
      else if (v === 27) delete s.r;
      else if (v >= 30 && v <= 37) s.fg = COLOURS[v - 30];
      else if (v >= 90 && v <= 97) s.fg = COLOURS[v - 82];
      else if (v >= 40 && v <= 47) s.bg = COLOURS[v - 40];
      else if (v >= 100 && v <= 107) s.bg = COLOURS[v - 92];
      else if (v === 39) delete s.fg;
      else if (v === 49) delete s.bg;
      else if (v === 38 || v === 48) {
        const to = v === 38 ? "fg" : "bg";
        if (n[i + 1] === 5) { s[to] = indexed(n[i + 2] || 0); i += 2; }
        else if (n[i + 1] === 2) { s[to] = `rgb(${n[i + 2] || 0},${n[i + 3] || 0},${n[i + 4] || 0})`; i += 4; }
      }
    }
    this.style = Object.keys(s).length ? Object.freeze(s) : PLAIN;
  }
}

// Styles are set through the object model, which the page's policy allows; a `style` attribute in markup it would not.
function span(text, style, cursor) {
  const node = document.createElement("span");
  node.textContent = text;
  node.className = ["b", "u", "i", "d"].filter((k) => style[k]).join(" ") + (cursor ? " cur" : "");
  const [fg, bg] = style.r ? [style.bg ?? "#10141a", style.fg ?? "#dfe5ec"] : [style.fg, style.bg];
  if (fg && !cursor) node.style.color = fg;
  if (bg && !cursor) node.style.background = bg;
  return node;
}

function drawLine(cells, cursor) {
  const row = document.createElement("div");
  let text = "", style = PLAIN;
  const flush = () => { if (text) row.append(style === PLAIN ? text : span(text, style, false)); text = ""; };
  const end = Math.max(cells.length, cursor + 1);
  for (let i = 0; i < end; i++) {
    const [c, s] = cells[i] ?? [" ", PLAIN];
    if (i === cursor) { flush(); row.append(span(c || " ", s, true)); continue; }
    if (s !== style) { flush(); style = s; }
    text += c;
  }
  flush();
  if (!row.firstChild) row.append(" ");
  return row;
}

const KEYS = { Enter: "\r", Backspace: "\x7f", Tab: "\t", Escape: "\x1b", Insert: "\x1b[2~", Delete: "\x1b[3~", PageUp: "\x1b[5~", PageDown: "\x1b[6~",
  F1: "\x1bOP", F2: "\x1bOQ", F3: "\x1bOR", F4: "\x1bOS", F5: "\x1b[15~", F6: "\x1b[17~", F7: "\x1b[18~", F8: "\x1b[19~", F9: "\x1b[20~", F10: "\x1b[21~" };
const ARROWS = { ArrowUp: "A", ArrowDown: "B", ArrowRight: "C", ArrowLeft: "D", Home: "H", End: "F" };

/** What a key sends; undefined for those that are the browser's. */
export function keyText(e, keypad) {
  if (e.metaKey || e.isComposing) return undefined;
  if (ARROWS[e.key]) return e.ctrlKey ? `\x1b[1;5${ARROWS[e.key]}` : `\x1b${keypad ? "O" : "["}${ARROWS[e.key]}`;
  if (e.key === "Tab" && e.shiftKey) return "\x1b[Z";
  if (KEYS[e.key]) return KEYS[e.key];
  if (e.key.length !== 1) return undefined;
  if (e.ctrlKey && !e.altKey) {
    if (e.shiftKey) return undefined;
    const code = e.key.toUpperCase().charCodeAt(0);
    if (code >= 64 && code <= 95) return String.fromCharCode(code - 64);
    return e.key === " " ? "\0" : undefined;
  }
  return e.altKey && !e.ctrlKey ? `\x1b${e.key}` : e.key;
}

/** Opens a terminal in a part of the page. */
export function open(panel) {
  const view = document.createElement("pre");
  view.className = "term";
  view.tabIndex = 0;
  view.setAttribute("role", "textbox");
  view.setAttribute("aria-multiline", "true");
  view.setAttribute("aria-label", document.title);
  panel.replaceChildren(view);
  const probe = span("0".repeat(100), PLAIN, false), line = document.createElement("div");
  line.append(probe);
  view.append(line);
  const cell = { w: probe.getBoundingClientRect().width / 100 || 8, h: line.getBoundingClientRect().height || 17 };
  const size = () => [Math.max(5, Math.floor((view.clientHeight - 20) / cell.h)), Math.max(20, Math.floor((view.clientWidth - 22) / cell.w))];
  const screen = new Screen(...size());
  view.replaceChildren();
  const url = new URL(panel.dataset.socket, location.href);
  url.searchParams.set("rows", screen.rows);
  url.searchParams.set("cols", screen.cols);
  const source = new EventSource(url);
  const decoder = new TextDecoder();
  let id = "", ended = false, drawing = false, queue = "", sending = false, first = 0, above = 0;

  const post = (query, body) => fetch(`${url.pathname.replace(/stream$/, "input")}?terminal=${id}${query}`, {
    method: "POST", body, headers: { "X-Tripod-Csrf": url.searchParams.get("csrf") },
  });
  // One request at a time, so that what is typed arrives in order; what comes meanwhile goes together.
  async function send(text) {
    queue += text;
    if (sending || !id) return;
    sending = true;
    while (queue && !ended) { const part = queue; queue = ""; await post("", part).catch(() => {}); }
    sending = false;
  }
  const draw = () => {
    drawing = false;
    const down = view.scrollHeight - view.scrollTop - view.clientHeight < 3 * cell.h;
    const end = screen.dropped + screen.above.length;
    while (view.childElementCount > above - first) view.lastElementChild.remove();
    for (; first < Math.min(above, screen.dropped); first++) view.firstElementChild.remove();
    if (above < screen.dropped) first = above = screen.dropped;
    for (; above < end; above++) view.append(drawLine(screen.above[above - screen.dropped], -1));
    screen.lines.forEach((line, y) => view.append(drawLine(line, !ended && screen.shown && y === screen.y ? screen.x : -1)));
    if (down) view.scrollTop = view.scrollHeight;
  };
  const redraw = () => { if (!drawing) { drawing = true; requestAnimationFrame(draw); } };
  const show = (text) => {
    screen.write(text);
    if (screen.answers.length) send(screen.answers.splice(0).join(""));
    redraw();
  };
  source.addEventListener("ready", (e) => { id = e.data; if (queue) send(""); });
  source.addEventListener("output", (e) => show(decoder.decode(Uint8Array.from(atob(e.data), (c) => c.charCodeAt(0)), { stream: true })));
  const stop = (text) => { if (ended) return; ended = true; source.close(); show(`\r\n\x1b[2m${text}\x1b[0m\r\n`); };
  source.addEventListener("end", (e) => stop(e.data));
  source.addEventListener("error", () => stop(document.getElementById("status").dataset.lost));
  view.addEventListener("keydown", (e) => {
    // Ctrl+Shift+Tab and the like leave the terminal, so that the keyboard is never caught in it.
    if (e.key === "Tab" && e.ctrlKey) return;
    const text = keyText(e, screen.keypad);
    if (text === undefined || (e.ctrlKey && e.key === "c" && String(getSelection()))) return;
    e.preventDefault();
    view.scrollTop = view.scrollHeight;
    send(text);
  });
  view.addEventListener("paste", (e) => {
    e.preventDefault();
    const text = e.clipboardData.getData("text").replace(/\r?\n/g, "\r");
    send(screen.bracketed ? `\x1b[200~${text}\x1b[201~` : text);
  });
  view.addEventListener("focus", redraw);
  view.addEventListener("blur", redraw);
  new ResizeObserver(() => {
    const [rows, cols] = size();
    if (rows === screen.rows && cols === screen.cols) return;
    screen.resize(rows, cols);
    if (id && !ended) post(`&rows=${rows}&cols=${cols}`).catch(() => {});
    redraw();
  }).observe(view);
  addEventListener("pagehide", () => source.close());
  view.focus();
}
