// What the page does beyond being read: it follows changes, loads more rows, shows logs and terminals as they go on.
// Everything else works without this file.

const root = document.documentElement;
const base = document.body.dataset.base;
const status = document.getElementById("status");
root.classList.add("js");

// ---- taking over what changed, so that focus, open folds and scrolling stay ----

/** Makes `old` like `fresh`, touching only what differs. */
function morph(old, fresh) {
  if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName) {
    old.replaceWith(fresh);
    return;
  }
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.nodeValue !== fresh.nodeValue) old.nodeValue = fresh.nodeValue;
    return;
  }
  if (old.matches("details.ask[open], form.editor, .log, .terminal")) return;
  for (const { name } of [...old.attributes]) {
    const own = (name === "open" && old.nodeName === "DETAILS") || name === "data-paged" || (name === "class" && old.nodeName === "TR");
    if (!fresh.hasAttribute(name) && !own) old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  if (old.nodeName === "TBODY") { morphRows(old, fresh); return; }
  if (old.matches(".more") && old.closest("section").dataset.paged) return;
  const kept = [...old.childNodes], wanted = [...fresh.childNodes];
  wanted.forEach((node, i) => {
    if (i < kept.length) morph(kept[i], node);
    else old.append(node);
  });
  for (const node of kept.slice(wanted.length)) node.remove();
}

const withoutAges = (row) => row.textContent.replace(/\d+[smhd]/g, "");

/** Rows are the same when they lead to the same object. */
function morphRows(old, fresh) {
  const key = (row) => row.querySelector("a")?.getAttribute("href") ?? row.textContent;
  const known = new Map([...old.rows].map((row) => [key(row), row]));
  let at = old.firstElementChild;
  for (const row of [...fresh.rows]) {
    const same = known.get(key(row));
    if (!same) {
      row.classList.add("changed");
      old.insertBefore(row, at);
      continue;
    }
    known.delete(key(row));
    const before = withoutAges(same);
    if (same === at) at = at.nextElementSibling;
    else old.insertBefore(same, at);
    morph(same, row);
    if (withoutAges(same) !== before) {
      same.classList.remove("changed");
      requestAnimationFrame(() => same.classList.add("changed"));
    }
  }
  // Rows that were loaded by scrolling stay until the page is loaded again.
  if (!old.closest("section")?.dataset.paged) for (const row of known.values()) row.remove();
}

/** The changing part of a page, as it is now. */
async function fragment(url) {
  const answer = await fetch(url, { headers: { "X-Tripod-Fragment": "1" } });
  const box = document.createElement("template");
  box.innerHTML = await answer.text();
  return box.content;
}

let fetching = false, again = false;
async function refresh() {
  if (fetching) { again = true; return; }
  fetching = true;
  try {
    const fresh = (await fragment(location.href)).getElementById("live");
    const old = document.getElementById("live");
    if (fresh && old) morph(old, fresh);
    status.textContent = "";
  } catch {
    status.textContent = status.dataset.lost;
  }
  fetching = false;
  if (again) { again = false; setTimeout(refresh, 300); }
}

function follow() {
  const kinds = document.getElementById("live")?.dataset.live;
  if (!kinds) return;
  let source, opened = false;
  const open = () => {
    source?.close();
    source = new EventSource(`${base}/live?kinds=${encodeURIComponent(kinds)}`);
    source.addEventListener("change", refresh);
    // What happened while there was no connection is not told again.
    source.addEventListener("open", () => { if (opened) refresh(); opened = true; });
    source.addEventListener("error", () => {
      if (source.readyState !== EventSource.CLOSED) status.textContent = status.dataset.lost;
      else setTimeout(() => { refresh(); open(); }, 3000);
    });
  };
  open();
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) source.close();
    else { refresh(); open(); }
  });
  addEventListener("pagehide", () => source.close());
  addEventListener("pageshow", (e) => { if (e.persisted) { refresh(); open(); } });
  // Ages and graphs go on without changes.
  setInterval(() => { if (!document.hidden) refresh(); }, document.querySelector("svg.bar, .graphs") ? 5000 : 30000);
}

// ---- more rows when the end of a list is near ----

function more() {
  const link = document.querySelector('.more a[href*="after="]');
  if (!link) return;
  const seen = new IntersectionObserver(async (entries) => {
    if (!entries.some((e) => e.isIntersecting)) return;
    seen.unobserve(link);
    link.closest("section").dataset.paged = "1";
    const page = await fragment(link.href);
    link.closest("section").querySelector("tbody").append(...page.querySelectorAll("tbody tr"));
    const next = page.querySelector(".more a");
    if (next) { link.href = next.getAttribute("href"); seen.observe(link); }
    else link.parentElement.remove();
  }, { rootMargin: "1200px" });
  seen.observe(link);
}

// ---- logs ----

const LINES = 20000;

function log(panel) {
  const pre = panel.querySelector("pre"), toggle = panel.querySelector(".follow"), grep = panel.querySelector(".grep");
  let pending = [], source;
  const matches = (line) => !grep.value || line.textContent.toLowerCase().includes(grep.value.toLowerCase());
  const flush = () => {
    const lines = pending.map(({ text, err }) => {
      const line = document.createElement("span");
      line.className = err ? "line err" : "line";
      line.textContent = text;
      line.hidden = !matches(line);
      return line;
    });
    pending = [];
    pre.append(...lines);
    while (pre.childElementCount > LINES) pre.firstElementChild.remove();
    if (toggle.checked) pre.scrollTop = pre.scrollHeight;
  };
  const add = (line) => {
    pending.push(line);
    if (pending.length === 1) requestAnimationFrame(flush);
  };
  pre.textContent = "";
  source = new EventSource(panel.dataset.stream);
  source.addEventListener("line", (e) => add(JSON.parse(e.data)));
  source.addEventListener("end", (e) => { source.close(); if (e.data) add({ text: e.data, err: true }); });
  source.addEventListener("open", () => { pre.textContent = ""; });
  pre.addEventListener("wheel", (e) => { if (e.deltaY < 0) toggle.checked = false; });
  toggle.addEventListener("change", flush);
  grep.addEventListener("input", () => { for (const line of pre.children) line.hidden = !matches(line); });
  addEventListener("pagehide", () => source.close());
}

// ---- choices without a button, keys ----

document.querySelector(".scope select").addEventListener("change", (e) => {
  const url = new URL(location.href);
  if (e.target.value) url.searchParams.set("namespace", e.target.value);
  else url.searchParams.delete("namespace");
  url.searchParams.delete("after");
  location.assign(url);
});
addEventListener("keydown", (e) => {
  if (e.key === "/" && !e.target.closest("input, textarea, select, .term") && !e.ctrlKey && !e.metaKey) {
    e.preventDefault();
    document.getElementById("search").focus();
  }
  if (e.key === "Escape") for (const d of document.querySelectorAll("details.ask[open]")) {
    d.open = false;
    d.querySelector("summary").focus();
  }
});
document.addEventListener("click", (e) => {
  for (const d of document.querySelectorAll("details.ask[open]")) if (!d.contains(e.target)) d.open = false;
});

follow();
more();
document.querySelectorAll(".log[data-stream]").forEach(log);
const terminal = document.querySelector(".terminal[data-socket]");
if (terminal) import("./term.js").then((m) => m.open(terminal));
