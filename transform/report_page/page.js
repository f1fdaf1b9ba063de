// Sort, search and filter the table, draw one account's history, keep ages and local times right.
(() => {
  "use strict";
  const MINUTE = 60, HOUR = 3600, DAY = 86400;
  const all = (selector) => [...document.querySelectorAll(selector)];
  const seconds = (iso) => Date.parse(iso) / 1000;
  const utcDay = (at) => new Date(at * 1000).toISOString().slice(0, 10);
  const pad = (number) => String(number).padStart(2, "0");

  // The functions `span` and `ending` of words.py.
  const span = (length) => {
    if (length < MINUTE) return "less than a minute";
    const [unit, name] =
      length < HOUR ? [MINUTE, "minute"] : length < 2 * DAY ? [HOUR, "hour"] : [DAY, "day"];
    const count = Math.floor(length / unit);
    return `${count.toLocaleString("en")} ${name}${count === 1 ? "" : "s"}`;
  };
  const dayName = (day, today, tomorrow) =>
    day === today ? "today" : day === tomorrow ? "tomorrow" : day;
  const ending = (end, now, toTheMinute) => {
    const when = end > now ? `in ${span(end - now)}` : "by now";
    if (!toTheMinute) return `${when} (${utcDay(end)})`;
    const day = dayName(utcDay(end), utcDay(now), utcDay(now + DAY));
    const clock = new Date(end * 1000).toISOString().slice(11, 16);
    return `${when} (${day} ${clock} UTC${here(end, now, day)})`;
  };
  // ", tomorrow 02:00 here" in the reader's own zone, if that is not UTC.
  const localDay = (at) => {
    const time = new Date(at * 1000);
    return `${time.getFullYear()}-${pad(time.getMonth() + 1)}-${pad(time.getDate())}`;
  };
  const here = (at, now, utcDayName) => {
    const time = new Date(at * 1000);
    if (!time.getTimezoneOffset()) return "";
    const day = dayName(localDay(at), localDay(now), localDay(now + DAY));
    const clock = `${pad(time.getHours())}:${pad(time.getMinutes())}`;
    return `, ${day === utcDayName ? "" : `${day} `}${clock} here`;
  };

  const refresh = () => {
    const now = Date.now() / 1000;
    for (const element of all(".age"))
      element.textContent = span(Math.max(now - seconds(element.dataset.since), 0));
    for (const element of all("time.end"))
      element.textContent = ending(seconds(element.dateTime), now, "minute" in element.dataset);
    for (const element of all("time.clock")) {
      element.dataset.utc ??= element.textContent;
      const at = seconds(element.dateTime);
      element.textContent = element.dataset.utc + here(at, now, dayName(utcDay(at), utcDay(now)));
    }
  };

  const warn = (data) => {
    const made = seconds(data.made), judged = seconds(data.judged);
    const oldModels = made - judged > data.staleAfter;
    const show = () => {
      const old = Date.now() / 1000 - judged > data.staleAfter;
      document.getElementById("old-page").hidden = oldModels || !old;
      document.body.classList.toggle("old", oldModels || old);
      document.title = `${oldModels || old ? "Out of date: " : ""}Prepaid balances`;
    };
    show();
    setInterval(show, MINUTE * 1000);
  };

  const unpack = async (text) => {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return JSON.parse(await new Response(stream).text());
  };

  const makeTable = () => {
    const order = DataTable.ext.type.order;
    const signs = "■▲◆?○✓";
    order["amount-pre"] = (text) => parseFloat(text.replace(/[^\d.-]/g, "")) || 0;
    order["status-pre"] = (text) => signs.indexOf(text.trim()[0]);
    order["when-pre"] = (html) => {
      const at = /(?:datetime|data-since)="([^"]*)"/.exec(html);
      return at ? seconds(at[1]) : html.startsWith("nothing") ? 0 : Infinity;
    };
    order["age-pre"] = (html) => -order["when-pre"](html);
    return new DataTable("#table", {
      autoWidth: false,
      order: [],
      pageLength: 25,
      lengthMenu: [25, 100, { label: "all", value: -1 }],
      columns: [
        { type: "html" },
        { type: "status" },
        { type: "amount" },
        { type: "amount" },
        { type: "when", searchable: false },
        { orderable: false, searchable: false },
        { type: "age", searchable: false },
      ],
      language: {
        search: "Search account, status or currency",
        info: "_START_ to _END_ of _TOTAL_ accounts",
        infoEmpty: "no accounts",
        infoFiltered: "(of _MAX_)",
        lengthMenu: "_MENU_ a page",
        emptyTable: "no accounts",
        zeroRecords: "no account matches",
      },
      layout: { topStart: "search", topEnd: "pageLength", bottomStart: "info", bottomEnd: "paging" },
    });
  };

  // #status-low, #surge and #account-3 in the address show these rows only.
  const followLinks = (table) => {
    const filter = document.getElementById("filter");
    const show = () => {
      const [kind, value] = location.hash.slice(1).split("-");
      const known = { status: value, surge: "surge", account: "this account" }[kind];
      const row = (index) => table.row(index).node();
      table.search.fixed("link", (text, data, index) =>
        kind === "status" ? row(index).classList.contains(value)
          : kind === "surge" ? row(index).cells[1].textContent.includes("surge")
            : kind === "account" ? row(index).id === `account-${value}` : true);
      if (known) table.search("");
      table.draw();
      filter.hidden = !known;
      filter.firstElementChild.textContent = `Only ${known}.`;
      for (const link of all(".counts a"))
        link.toggleAttribute("aria-current", Boolean(known) && link.hash === location.hash);
      if (location.hash) {
        document.getElementById("accounts").scrollIntoView();
        document.getElementById("accounts-title").focus({ preventScroll: true });
      }
      if (kind === "account")
        table.row(`#account-${value}`).node()?.querySelector("button[aria-expanded=false]")?.click();
    };
    addEventListener("hashchange", show);
    if (location.hash) show();
  };

  const addButtons = (table, data) => {
    for (const row of table.rows().nodes().toArray()) {
      const name = row.cells[0].firstChild;
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = name.textContent.trim();
      button.title = "Show its history";
      button.setAttribute("aria-expanded", "false");
      name.replaceWith(button, " ");
    }
    document.getElementById("table").addEventListener("click", ({ target }) => {
      if (target.tagName !== "BUTTON" || !target.hasAttribute("aria-expanded")) return;
      const row = table.row(target.closest("tr"));
      const open = !row.child.isShown();
      target.setAttribute("aria-expanded", String(open));
      if (!open) return void row.child.remove();
      const panel = document.createElement("div");
      panel.className = "history";
      row.child(panel).show();
      drawHistory(panel, data, data.accounts[row.node().id.split("-")[1]], target.textContent);
    });
  };

  // The days that an account has, and after them the range in which its balance is expected.
  const series = (data, account) => {
    const begin = Math.max(account.rise.findIndex((rise) => rise !== null), 0);
    const first = seconds(data.firstDay) + begin * DAY;
    const [rises, spent, gifts, added] =
      ["rise", "spend", "gift", "topUp"].map((name) => account[name].slice(begin));
    const scaled = (values) => values.map((value) => (value === null ? null : value / 10000));
    let before = 0;
    const left = rises.map((rise, at) => {
      if (rise === null) return null;
      before += rise - (spent[at] ?? 0) - (gifts[at] ?? 0);
      return before;
    });
    const x = left.map((_, at) => first + at * DAY);
    const total = Number(account.total), [middle, low, high] = account.daysLeft;
    const past = left.map(() => null);
    const ahead = [];
    if (middle !== null) {
      const days = Math.min(Math.ceil(high ?? middle * 2) + 1, 90);
      for (let day = 0; day <= days; day++) ahead.push(day);
    }
    const line = (length) => [
      ...past.slice(0, -1),
      ...(ahead.length || past.length ? [total] : []),
      ...ahead.slice(1).map((day) =>
        length === null ? total : length ? Math.max(total * (1 - day / length), 0) : 0),
    ];
    const later = ahead.slice(1);
    const none = later.map(() => null);
    return {
      x: [...x, ...later.map((day) => x[x.length - 1] + day * DAY)],
      left: [...scaled(left), ...none],
      topUp: [
        ...left.map((amount, at) => (added[at] > 0 && amount !== null ? amount / 10000 : null)),
        ...none,
      ],
      added,
      spend: [...scaled(spent), ...none],
      low: later.length ? line(low) : [...past],
      high: later.length ? line(high) : [...past],
    };
  };

  const drawHistory = (panel, data, account, name) => {
    const ink = getComputedStyle(document.body).color;
    const grid = getComputedStyle(document.querySelector("#table td")).borderBottomColor;
    const format = new Intl.NumberFormat("en", {
      minimumFractionDigits: account.digits, maximumFractionDigits: Math.max(account.digits, 4),
    });
    const money = (_, value) =>
      value === null || value === undefined ? "not known" : `${format.format(value)} ${account.currency}`.trim();
    const expected = (_, value) => (value === null ? "" : money(_, value));
    const { x, left, topUp, added, spend, low, high } = series(data, account);
    const axis = { stroke: ink, grid: { stroke: grid, width: 1 }, ticks: { stroke: grid } };
    const month = new Intl.DateTimeFormat("en-US", { month: "short", timeZone: "UTC" });
    const dayMonth = (at) => `${new Date(at * 1000).getUTCDate()} ${month.format(at * 1000)}`;
    const axes = [
      { ...axis, values: (_, days) => days.map(dayMonth) },
      { ...axis, size: 80 },
    ];
    const common = {
      width: Math.max(panel.clientWidth - 8, 280),
      tzDate: (at) => uPlot.tzDate(new Date(at * 1000), "Etc/UTC"),
      cursor: { y: false, sync: { key: name }, drag: { x: false, y: false } },
      legend: { markers: { show: false } },
    };
    const day = { label: "UTC day", value: (_, at) => (at === null ? "" : utcDay(at)) };
    const plus = (chart, at) => {
      chart.ctx.save();
      chart.ctx.strokeStyle = ink;
      chart.ctx.lineWidth = 2 * devicePixelRatio;
      chart.ctx.beginPath();
      const size = 6 * devicePixelRatio;
      chart.data[at].forEach((amount, index) => {
        if (amount === null) return;
        const px = chart.valToPos(chart.data[0][index], "x", true);
        const py = chart.valToPos(amount, "y", true);
        chart.ctx.moveTo(px - size, py);
        chart.ctx.lineTo(px + size, py);
        chart.ctx.moveTo(px, py - size);
        chart.ctx.lineTo(px, py + size);
      });
      chart.ctx.stroke();
      chart.ctx.restore();
      return null;
    };
    const balance = new uPlot({
      ...common,
      height: 180,
      title: `${name}: balance at each day's close, and the range that is expected`,
      series: [
        day,
        { label: "left", stroke: ink, width: 2, value: money },
        { label: "+ topped up", stroke: ink, paths: plus, points: { show: false },
          value: (_, __, ___, index) => money(null, index === null ? null : added[index] && added[index] / 10000) },
        { label: "expected at most", stroke: ink, dash: [4, 4], points: { show: false }, value: expected },
        { label: "at least", stroke: ink, dash: [2, 4], points: { show: false }, value: expected },
      ],
      bands: [{ series: [3, 4], fill: grid }],
      axes,
    }, [x, left, topUp, high, low], panel);
    const daily = new uPlot({
      ...common,
      height: 140,
      title: "Spent of the paid balance, by day",
      series: [
        day,
        { label: "spent", stroke: ink, fill: ink, paths: uPlot.paths.bars({ size: [0.7] }),
          points: { show: false }, value: money },
      ],
      axes,
    }, [x, spend], panel);
    const goTo = (at) => {
      for (const chart of [balance, daily])
        chart.setCursor({ left: chart.valToPos(x[at], "x"), top: 10 });
    };
    const newest = left.findLastIndex((amount) => amount !== null);
    requestAnimationFrame(() => goTo(newest));
    // The arrows move the day whose numbers are shown.
    panel.tabIndex = 0;
    panel.setAttribute("role", "group");
    panel.setAttribute("aria-label", `History of ${name}; the arrow keys go from day to day`);
    panel.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!step) return;
      event.preventDefault();
      goTo(Math.min(Math.max((balance.cursor.idx ?? newest) + step, 0), x.length - 1));
    });
  };

  const start = async () => {
    const data = await unpack(document.getElementById("data").textContent);
    refresh();
    setInterval(refresh, MINUTE * 1000);
    if (!data.accounts.length) return;
    warn(data);
    const table = makeTable();
    addButtons(table, data);
    followLinks(table);
    table.on("draw", refresh);
  };
  start();
})();
