// The page is whole without this. With it: it keeps itself fresh, can be paused, and draws what happened lately.
"use strict";
(() => {
  const EVERY = 5000;
  const by = (id) => document.getElementById(id);
  // Without the password that somebody may have written into the address, which fetch() refuses.
  const here = (path) => new URL(path, location.origin);
  const store = {
    get: (name) => { try { return sessionStorage.getItem(name); } catch { return null; } },
    set: (name, value) => { try { sessionStorage.setItem(name, value); } catch { /* forbidden: then it is forgotten */ } },
  };

  // Fresh

  let paused = store.get("paused") === "true";
  let lostSince = null;
  let asking = false;

  // What somebody is about to use, or reads out to somebody, is not taken away.
  const inUse = (part) => {
    const selected = document.getSelection();
    return part.querySelector("input:checked") !== null
      || (part.contains(document.activeElement) && document.activeElement.matches("button, input, a"))
      || (selected !== null && !selected.isCollapsed && part.contains(selected.anchorNode));
  };

  const put = (next) => {
    document.title = next.title;
    document.querySelector("link[rel=icon]").href = next.querySelector("link[rel=icon]").getAttribute("href");
    for (const part of document.querySelectorAll("[data-live]")) {
      const fresh = next.getElementById(part.id);
      if (fresh !== null && !inUse(part) && fresh.outerHTML !== part.outerHTML) {
        part.replaceWith(document.adoptNode(fresh));
      }
    }
    chooseAll();
  };

  const lost = (why) => {
    lostSince = lostSince ?? new Date();
    const since = lostSince.toISOString().slice(11, 19);
    by("lost").textContent = `pubd does not answer since ${since} UTC (${why}). What you see is from before.`;
    by("lost").hidden = false;
    document.title = "NO ANSWER · pubd";
  };

  const refresh = async () => {
    if (asking || paused || document.hidden) return;
    asking = true;
    try {
      const address = here(location.pathname + location.search);
      address.searchParams.delete("did");
      address.searchParams.delete("count");
      const answer = await fetch(address, { cache: "no-store", signal: AbortSignal.timeout(3 * EVERY) });
      if (!answer.ok) throw new Error(`status ${answer.status}`);
      put(new DOMParser().parseFromString(await answer.text(), "text/html"));
      lostSince = null;
      by("lost").hidden = true;
      await follow();
    } catch (error) {
      lost(error.message);
    } finally {
      asking = false;
    }
  };

  const showPaused = () => {
    by("pause").setAttribute("aria-pressed", String(paused));
    by("pause").textContent = paused ? "Paused" : "Pause";
  };
  by("pause").hidden = false;
  by("pause").addEventListener("click", () => {
    paused = !paused;
    store.set("paused", String(paused));
    showPaused();
    refresh();
  });
  document.addEventListener("visibilitychange", refresh);

  // All of a list

  const chooseAll = () => {
    for (const corner of document.querySelectorAll("th.choose:empty")) {
      const all = document.createElement("input");
      all.type = "checkbox";
      all.setAttribute("aria-label", "choose all that are shown");
      all.addEventListener("change", () => {
        for (const each of corner.closest("table").querySelectorAll("input[name=id]")) each.checked = all.checked;
      });
      corner.append(all);
    }
  };

  // Charts

  const RATES = ["accepted", "confirmed", "returned", "nacked", "lost"];
  let range = store.get("range") ?? "10m";
  let history = null;
  let plots = [];

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const whole = (value) => value.toLocaleString("en", { maximumFractionDigits: value < 10 ? 1 : 0 });
  const brief = (value) => value.toLocaleString("en", { notation: "compact", maximumFractionDigits: 1 });
  const age = (value) => {
    if (value < 60) return `${whole(value)}s`;
    if (value < 3600) return `${Math.floor(value / 60)}m`;
    return value < 172800 ? `${Math.floor(value / 3600)}h` : `${Math.floor(value / 86400)}d`;
  };
  const latency = (value) => (value < 1 ? `${Number((value * 1000).toPrecision(2))} ms` : `${Number(value.toPrecision(2))} s`);
  const CHARTS = {
    rates: { lines: RATES.map((name) => [name, name, name]), words: whole },
    backlog: { lines: [["waiting", "waiting", "accepted"], ["parked", "parked", "nacked"], ["deferred", "deferred", "deferred"]], words: whole },
    oldest: { lines: [["oldest", "oldest", "returned"]], words: age },
    latency: { lines: [["p99", "confirm_p99", "returned"], ["p50", "confirm_p50", "confirmed"]], words: latency },
  };

  const bands = (plot) => {
    const { ctx, bbox } = plot;
    const half = history.interval / 2;
    ctx.save();
    for (const name of ["blocked", "down"]) {
      ctx.fillStyle = colour(`${name}-band`);
      history.time.forEach((time, at) => {
        if (history[name][at] <= 0) return;
        const from = Math.max(plot.valToPos(time - 2 * half, "x", true), bbox.left);
        const to = Math.min(plot.valToPos(time, "x", true), bbox.left + bbox.width);
        if (to > from) ctx.fillRect(from, bbox.top, to - from, bbox.height);
      });
    }
    ctx.restore();
  };

  // The newest numbers, where nobody points at others.
  const tell = () => requestAnimationFrame(() => {
    for (const plot of plots) {
      if (!(plot.cursor.left >= 0)) plot.setLegend({ idx: history.time.length - 1 }, false);
    }
  });

  const rows = (chart) => [history.time, ...chart.lines.map(([, name]) => (name === "waiting"
    ? history.ready.map((ready, at) => ready + history.in_flight[at]) : history[name]))];

  // From the beginning of what is asked for, so that it is seen where pubd was started.
  const SECONDS = { "10m": 600, "1h": 3600, "24h": 86400 };
  const span = () => {
    const end = history.time.length ? history.time[history.time.length - 1] : Date.now() / 1000;
    return [end - SECONDS[range], end];
  };

  const draw = () => {
    for (const plot of plots) plot.destroy();
    plots = [];
    if (history === null) return;
    by("charts").hidden = false;
    for (const figure of document.querySelectorAll("[data-chart]")) {
      const chart = CHARTS[figure.dataset.chart];
      const axis = { stroke: colour("quiet"), grid: { stroke: colour("grid"), width: 1 }, ticks: { stroke: colour("grid"), width: 1 } };
      plots.push(new uPlot({
        width: Math.max(figure.clientWidth, 200),
        height: 170,
        tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
        cursor: { sync: { key: "pubd" }, points: { size: 6 }, drag: { x: false, y: false } },
        legend: { live: true },
        scales: {
          x: { range: span },
          y: { range: (_, low, high) => [0, high > 0 ? high * 1.08 : 1] },
        },
        axes: [
          { ...axis, values: (_, splits) => splits.map((at) => new Date(at * 1000).toISOString().slice(11, 16)), space: 60 },
          { ...axis, size: 62, values: (_, splits) => splits.map((value) => (chart.words === whole ? brief(value) : chart.words(value))) },
        ],
        series: [
          { label: "UTC", value: (_, at) => (at === null || at === undefined ? "–" : new Date(at * 1000).toISOString().slice(11, 19)) },
          ...chart.lines.map(([label, , name]) => ({
            label, stroke: colour(name), width: 1.5, spanGaps: false, points: { show: false },
            value: (_, value) => (value === null || value === undefined ? "–" : chart.words(value)),
          })),
        ],
        hooks: { drawAxes: [bands] },
      }, rows(chart), figure));
    }
    tell();
  };

  const redraw = () => {
    const charts = [...document.querySelectorAll("[data-chart]")];
    plots.forEach((plot, at) => plot.setData(rows(CHARTS[charts[at].dataset.chart])));
    tell();
  };

  const NAMES = ["time", ...RATES, "ready", "in_flight", "deferred", "parked", "bytes", "oldest", "confirm_p50", "confirm_p99", "blocked", "down"];
  const follow = async () => {
    const after = history === null ? "" : `&after=${history.last}`;
    const asked = range;
    const answer = await fetch(here(`/history?last=${asked}${after}`), { cache: "no-store", signal: AbortSignal.timeout(3 * EVERY) });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    const more = await answer.json();
    if (asked !== range) return;
    if (history === null || more.last < history.last || more.last - history.last < more.time.length) {
      history = more;
      draw();
      return;
    }
    const most = Math.round(SECONDS[range] / more.interval);
    for (const name of NAMES) history[name] = history[name].concat(more[name]).slice(-most);
    history.last = more.last;
    if (more.time.length) redraw();
  };

  const showRange = () => {
    for (const button of document.querySelectorAll("[data-range]")) {
      button.setAttribute("aria-pressed", String(button.dataset.range === range));
    }
  };
  for (const button of document.querySelectorAll("[data-range]")) {
    button.addEventListener("click", () => {
      range = button.dataset.range;
      store.set("range", range);
      history = null;
      showRange();
      follow().catch((error) => lost(error.message));
    });
  }

  new ResizeObserver(() => {
    const figures = document.querySelectorAll("[data-chart]");
    plots.forEach((plot, at) => {
      const width = Math.max(figures[at].clientWidth, 200);
      if (width !== plot.width) plot.setSize({ width, height: 170 });
    });
  }).observe(by("charts"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);

  showPaused();
  showRange();
  chooseAll();
  follow().catch((error) => lost(error.message));
  setInterval(refresh, EVERY);
})();
