// All that the pages do by themselves: copy, pick, filter, compare. Text from data only ever becomes text.
(() => {
  "use strict";
  const byId = (id) => document.getElementById(id);
  const json = (id) => { const found = byId(id); return found ? JSON.parse(found.textContent) : null; };
  const strings = json("strings") || {};
  const root = document.body.dataset.root || "";
  const say = (key, words = {}) => (strings[key] || key).replace(/\{(\w+)\}/g, (_, name) => words[name] ?? "");
  const element = (tag, text = "", attributes = {}) => {
    const made = document.createElement(tag);
    if (text) made.textContent = text;
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    return made;
  };

  // Copying: the clipboard where pages may use it, else the selection.
  const copy = async (text) => {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      const area = element("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      const done = document.execCommand("copy");
      area.remove();
      return done;
    }
  };
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("button[data-copy]");
    if (!button) return;
    const done = await copy(byId(button.dataset.copy).textContent);
    button.textContent = say(done ? "copied" : "copy_failed");
    button.classList.toggle("done", done);
    setTimeout(() => { button.textContent = say("copy"); button.classList.remove("done"); }, 2000);
  });

  // Data of images lie in scripts, which pages may also load from a disk.
  const waiting = new Map();
  const loaded = new Map();
  globalThis.catalogue = (name, value) => { loaded.set(name, value); (waiting.get(name) || []).forEach((one) => one.resolve(value)); };
  const load = (name) => loaded.has(name) ? Promise.resolve(loaded.get(name)) : new Promise((resolve, reject) => {
    waiting.set(name, [...(waiting.get(name) || []), { resolve }]);
    const script = element("script", "", { src: `${root}data/${name}.js` });
    script.addEventListener("error", () => reject(new Error(name)));
    document.head.append(script);
  });

  // The picker
  const picker = byId("picker");
  if (picker) {
    const data = json("catalogue");
    const fields = picker.elements;
    const ORDER = ["torch", "cuda", "os", "platform", "flavour"];
    const numbers = (text) => text.split(".").map(Number);
    // As far as both are written out: 530.30 may be 530.30.02.
    const atLeast = (version, floor) => {
      const [have, want] = [numbers(version), numbers(floor)];
      const place = have.findIndex((number, index) => index < want.length && number !== want[index]);
      return place < 0 || have[place] > want[place];
    };
    const isMachine = () => fields.mode.value === "machine";
    const offer = (name, values, any) => {
      const select = fields[name];
      const chosen = any && select.options[0]?.value !== "" ? "" : select.value; // a machine takes any OS until somebody chooses one
      select.replaceChildren(...(any ? [element("option", say("any"), { value: "" })] : []), ...values.map((value) => element("option", value, { value })));
      if (values.includes(chosen)) select.value = chosen;
    };
    const distinct = (images, name) => [...new Set(images.map((image) => image[name]))];
    const narrowed = () => {
      let images = data.images;
      for (const name of ORDER) {
        if (isMachine() && (name === "torch" || name === "cuda")) continue;
        const values = distinct(images, name);
        offer(name, name === "flavour" ? data.flavours.filter((value) => values.includes(value)) : values, isMachine() && name !== "flavour");
        images = images.filter((image) => !fields[name].value || image[name] === fields[name].value);
      }
      return images;
    };
    const refusal = (image, driver, gpu) => {
      if (!gpu) return image.floor ? say("needs_gpu") : "";
      if (!image.floor) return say("no_gpu_use");
      const needed = image.drivers[gpu];
      if (!needed) return say("no_code", { gpu: fields.gpu.selectedOptions[0].textContent });
      return driver && !atLeast(driver, needed) ? say("driver_old", { floor: needed }) : "";
    };
    const list = (id, images, title, words) => {
      const box = byId(id);
      box.hidden = images.length === 0;
      box.firstElementChild.textContent = say(title, { count: images.length });
      box.lastElementChild.replaceChildren(...images.map((image) => {
        const item = element("li");
        item.append(element("a", image.name, { href: image.page }), words(image));
        return item;
      }));
    };
    const fill = (name, text) => {
      byId(`pick-${name}`).firstElementChild.textContent = text;
      byId(`pick-${name}`).closest(".copied").hidden = !text;
    };
    const showFiles = async (image) => {
      const box = byId("pick-files");
      const found = await load(image.slug).catch(() => null);
      if (shown !== image) return;
      fill("run", found ? found.run : say("failed"));
      box.hidden = !found || found.files.length === 0;
      if (box.hidden) return;
      byId("pick-file-list").replaceChildren(...found.files.map((file, number) => {
        const details = element("details");
        const summary = element("summary", `${file.title} `);
        summary.append(element("code", file.name));
        const pre = element("pre", "", { id: `pick-file-${number}`, tabindex: "0" });
        pre.append(element("code", file.text));
        details.append(summary, element("button", say("copy"), { type: "button", "data-copy": pre.id, "aria-label": say("copy_of", { what: file.name }) }), pre);
        return details;
      }));
    };
    let shown = null;
    const show = (image) => {
      shown = image;
      byId("result").hidden = !image;
      if (!image) return;
      byId("result-name").textContent = image.name;
      byId("result-name").href = byId("result-link").href = image.page;
      byId("result-verdict").textContent = image.verdict_words;
      byId("result-verdict").className = `chip ${image.verdict}`;
      byId("result-facts").textContent = [image.size, image.day].filter(Boolean).join(" · ");
      for (const name of ["tag", "digest", "pull"]) fill(name, image[name]);
      showFiles(image);
    };
    const answer = (text, isBad = false) => { byId("answer").textContent = text; byId("answer").classList.toggle("bad", isBad); };
    const pick = () => {
      for (const one of document.querySelectorAll(".version, .machine")) one.hidden = one.classList.contains("machine") !== isMachine();
      const images = narrowed();
      list("fitting", [], "others_fit", () => "");
      list("refused", [], "others_not", () => "");
      if (!isMachine()) {
        show(images[0]);
        answer(images[0] ? "" : say("none_fits"), true);
        return;
      }
      const driver = fields.driver.value.trim();
      if (driver && !/^\d{1,4}(\.\d{1,4}){0,3}$/.test(driver)) {
        show(null);
        answer(say("driver_unreadable"), true);
        return;
      }
      const verdicts = images.map((image) => [image, refusal(image, driver, fields.gpu.value)]);
      const fits = verdicts.filter(([, why]) => !why).map(([image]) => image);
      const anywhere = images.find((image) => !image.floor); // as inv doctor advises
      show(fits[0] || anywhere);
      if (fits[0]) answer(say("best", { name: fits[0].name }));
      else answer(anywhere ? say("without_gpu", { name: anywhere.name }) : say("none_fits"), true);
      list("fitting", fits.slice(1), "others_fit", () => "");
      const refused = new Map(verdicts.filter(([, why]) => why));
      list("refused", [...refused.keys()], "others_not", (image) => `: ${refused.get(image)}`);
    };
    picker.hidden = false;
    picker.addEventListener("input", pick);
    picker.addEventListener("submit", (event) => event.preventDefault());
    pick();
  }

  // The list of all images
  const filter = byId("filter");
  if (filter) {
    const rows = [...byId("images").tBodies[0].rows].map((row) => [row, row.textContent.toLowerCase()]);
    const apply = () => {
      const words = filter.elements.words.value.toLowerCase().split(/\s+/).filter(Boolean);
      let count = 0;
      for (const [row, text] of rows) {
        row.hidden = !words.every((word) => text.includes(word));
        count += !row.hidden;
      }
      byId("shown").textContent = say("shown", { count, all: rows.length });
    };
    filter.hidden = false;
    filter.addEventListener("input", apply);
    filter.addEventListener("submit", (event) => event.preventDefault());
    apply();
  }

  // The difference to any other image
  const compare = byId("compare");
  if (compare) {
    const select = compare.querySelector("select");
    const slug = compare.dataset.slug;
    const flat = (image) => new Map([...Object.entries(image.facts), ...Object.entries(image.python), ...Object.entries(image.os)]);
    const row = (name, old, now) => {
      const made = element("tr");
      made.append(element("th", name, { scope: "row" }), element("td", old ?? say("added")), element("td", now ?? say("gone")));
      return made;
    };
    const run = async () => {
      const [table, line] = [byId("compare-table"), byId("compare-answer")];
      table.replaceChildren();
      line.textContent = "";
      if (!select.value) return;
      try {
        const [before, after] = await Promise.all([load(select.value), load(slug)]);
        const [old, now] = [flat(before), flat(after)];
        const names = [...new Set([...old.keys(), ...now.keys()])].filter((name) => old.get(name) !== now.get(name));
        line.textContent = names.length ? say("from_to", { old: before.name, new: after.name, size: `${before.size} → ${after.size}`, count: names.length }) : say("nothing_differs");
        if (!names.length) return;
        const made = element("table", "", { class: "list" });
        const head = element("tr");
        head.append(...["what", "from", "to"].map((key) => element("th", say(key), { scope: "col" })));
        made.createTHead().append(head);
        made.createTBody().append(...names.map((name) => row(name, old.get(name), now.get(name))));
        table.append(made);
      } catch {
        line.textContent = say("failed");
      }
    };
    compare.hidden = false;
    compare.addEventListener("toggle", async () => {
      if (!compare.open || select.options.length) return;
      try {
        const all = await load("images");
        select.replaceChildren(element("option", "", { value: "" }), ...all.filter((one) => one.slug !== slug).map((one) => element("option", one.name, { value: one.slug })));
      } catch {
        byId("compare-answer").textContent = say("failed");
      }
    });
    select.addEventListener("input", run);
  }
})();
