// A client of the server's own API: no other address is asked.
"use strict";

const API = "/sdapi/v1/";
const PATIENCE = 400; // milliseconds between two looks at the picture at work
const $ = (id) => document.getElementById(id);
const form = $("form");
let image = null; // a data URL to start from
let isDrawing = false;

async function ask(path, fields) {
  const options = fields === undefined ? {} : {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(fields),
  };
  const answer = await fetch(path, options);
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.field ? `${found.field}: ${found.detail}` : found.detail);
  return found;
}

function say(text, isWrong = false) {
  $("said").textContent = text;
  $("said").classList.toggle("wrong", isWrong);
}

function choose(select, values, label = (value) => value) {
  for (const value of values) select.append(new Option(label(value), value));
}

function fieldsOfForm() {
  const given = new FormData(form);
  const [width, height] = given.get("size").split("x").map(Number);
  const fields = { prompt: given.get("prompt"), negative_prompt: given.get("negative_prompt"), width, height };
  const numbers = ["seed", "steps", "cfg_scale", "n_iter", ...(image ? ["denoising_strength"] : [])];
  for (const name of numbers) if (given.get(name) !== "") fields[name] = Number(given.get(name));
  for (const name of ["sampler_name", "scheduler"]) if (given.get(name)) fields[name] = given.get(name);
  fields.override_settings = { randn_source: given.get("rng") };
  if (image) fields.init_images = [image];
  return fields;
}

function show(source) {
  $("preview").hidden = !source;
  if (source) $("preview").src = source;
}

async function watch() {
  while (isDrawing) {
    await new Promise((done) => setTimeout(done, PATIENCE));
    const now = await ask(API + "progress").catch(() => null);
    if (!isDrawing || !now) continue;
    $("bar").value = now.progress;
    const step = `step ${now.state.sampling_step} of ${now.state.sampling_steps}`;
    if (now.state.sampling_steps) say(`${step}, about ${Math.ceil(now.eta_relative)} s left`);
    if (now.current_image) show("data:image/png;base64," + now.current_image);
  }
}

async function draw(event) {
  event.preventDefault();
  if (isDrawing) return;
  isDrawing = true;
  $("draw").disabled = true;
  $("cancel").disabled = $("bar").hidden = false;
  $("bar").value = 0;
  say("loading");
  watch();
  const began = performance.now();
  try {
    const found = await ask(API + (image ? "img2img" : "txt2img"), fieldsOfForm());
    const info = JSON.parse(found.info);
    show("data:image/png;base64," + found.images.at(-1));
    const seconds = ((performance.now() - began) / 1000).toFixed(1);
    const flagged = info.flagged.some(Boolean) ? "; black, because the safety checker flagged it" : "";
    const done = info.interrupted ? "cancelled; what it had come to is not kept" : `done in ${seconds} s${flagged}`;
    say([done, ...info.warnings].join(". "));
  } catch (error) {
    show(null);
    say(error.message, true);
  }
  isDrawing = false;
  $("draw").disabled = false;
  $("cancel").disabled = $("bar").hidden = true;
  await list();
}

function startFrom(file) {
  const reader = new FileReader();
  reader.onload = () => {
    image = reader.result;
    $("image").src = image;
    $("given").hidden = false;
  };
  reader.readAsDataURL(file);
}

function reuse(settings) {
  const set = (name, value) => { form.elements[name].value = value ?? ""; };
  set("prompt", settings.prompt);
  set("negative_prompt", settings.negative_prompt);
  set("size", `${settings.width}x${settings.height}`);
  set("seed", settings.seed);
  set("steps", settings.num_inference_steps);
  set("cfg_scale", settings.guidance_scale);
  set("rng", settings.rng);
  set("sampler_name", settings.sampler);
  set("scheduler", settings.schedule_type);
  form.elements.prompt.focus();
}

function tile({ name, settings }) {
  const item = document.createElement("li");
  const link = document.createElement("a");
  const picture = document.createElement("img");
  const words = document.createElement("p");
  link.href = picture.src = "/gallery/" + encodeURIComponent(name);
  link.target = "_blank";
  picture.loading = "lazy";
  picture.alt = settings ? settings.prompt : name;
  words.textContent = settings ? `${settings.prompt} (seed ${settings.seed})` : name;
  link.append(picture);
  item.append(link, words);
  if (settings) {
    const again = document.createElement("button");
    again.type = "button";
    again.textContent = "Use settings";
    again.addEventListener("click", () => reuse(settings));
    item.append(again);
  }
  return item;
}

async function list() {
  const pictures = await ask("/gallery");
  $("empty").hidden = pictures.length > 0;
  $("gallery").replaceChildren(...pictures.map(tile));
}

async function begin() {
  const bundle = await ask("/bundle");
  $("model").textContent = bundle.model;
  choose(form.elements.size, bundle.sizes.map(({ width, height }) => `${width}x${height}`));
  choose(form.elements.sampler_name, bundle.samplers);
  choose(form.elements.scheduler, bundle.schedule_types);
  choose(form.elements.rng, bundle.rngs);
  $("start").hidden = !bundle.takes_images;
  await list();
}

form.addEventListener("submit", draw);
$("cancel").addEventListener("click", () => ask(API + "interrupt", {}).catch((error) => say(error.message, true)));
$("file").addEventListener("change", () => { if ($("file").files.length) startFrom($("file").files[0]); });
$("forget").addEventListener("click", () => { image = null; $("file").value = ""; $("given").hidden = true; });
form.elements.prompt.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
});
for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault(); // or the browser opens the picture in place of the page
    $("drop").classList.toggle("over", name === "dragenter" || name === "dragover");
    const file = name === "drop" ? event.dataTransfer.files[0] : undefined;
    if (file && !$("start").hidden) startFrom(file);
  });
}
begin().catch((error) => say(error.message, true));
