#!/usr/bin/env node
// Opens the built page in Chromium and runs one of the clients' commands through it.
// Takes the arguments of the other clients and prints their lines.

import { createServer } from "node:http";
import { readFile } from "node:fs/promises";
import { extname, join, parse } from "node:path";
import { parseArgs } from "node:util";
import { chromium } from "playwright-core";

const usage = `usage: check.mjs [--addr HOST:PORT] [--port PORT] [--screenshot PICTURE] COMMAND

  classify FILE   tell the type of a file
  speech FILE     tell where a WAV file has speech
  deadline        let the deadline of a call pass
  cancel          cancel a call
  error           send a request that the server refuses
  page FILE       choose a file on the page and tell what the page shows

  --addr          gRPC address of the server; it must allow the page's origin
  --port          port on 127.0.0.1 that the page comes from, any free one unless given
  --screenshot    the page on a phone, after the command page, whose FILE is README.md unless
                  given: page.png becomes page-light.png and page-dark.png
  --models        taken and ignored: the page has the labels built in
`;

const phone = { width: 390, height: 844 };
const types = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css" };
const flags = [
  "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync",
];

/** Runs one command and gives the lines to print. */
const commands = {
  async classify(page, file) {
    const [{ label, score }] = await call(page, "classify", await readFile(file));
    return [`classify: ${label} ${score.toFixed(4)}`];
  },
  async speech(page, file) {
    const probabilities = await call(page, "speech", await readFile(file));
    const voiced = probabilities.filter((probability) => probability >= 0.5);
    const shown = probabilities.map((probability) => probability.toFixed(3));
    const lines = [`speech: ${shown.length} steps, ${voiced.length} with speech`];
    for (let at = 0; at < shown.length; at += 10) {
      lines.push(shown.slice(at, at + 10).join(" "));
    }
    return lines;
  },
  async deadline(page) {
    return [`deadline: ${await call(page, "deadline")} after 1 answer`];
  },
  async cancel(page) {
    return [`cancel: ${await call(page, "cancel")} after 3 answers`];
  },
  async error(page) {
    const { code, message } = await outcome(page, "sendMistake");
    if (code !== "INVALID_ARGUMENT") {
      throw new Error(`${code ?? "OK"}: ${message ?? "the server took a row of three values"}`);
    }
    return [`error: ${code}: ${message}`];
  },
  async page(page, file) {
    await page.setInputFiles("#file", file);
    await page.locator("#work").waitFor({ state: "hidden" });
    const shown = await page.locator("#failure, #type, #speech").filter({ visible: true }).all();
    return Promise.all(shown.map(async (part) => {
      const text = await part.innerText();
      return `${await part.getAttribute("id")}: ${text.replace(/\s+/g, " ").trim()}`;
    }));
  },
};

/** What a call of `window.onnxd` gives, or why it failed. */
function outcome(page, name, bytes) {
  return page.evaluate(async ([name, text]) => {
    const file = text && Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
    try {
      return { value: await window.onnxd[name](file) };
    } catch (error) {
      return window.onnxd.explain(error);
    }
  }, [name, bytes?.toString("base64")]);
}

async function call(page, name, bytes) {
  const { value, code, message } = await outcome(page, name, bytes);
  if (message !== undefined) {
    throw new Error(code ? `${code}: ${message}` : message);
  }
  return value;
}

/** Serves dist/ to this machine. */
async function serve(port) {
  const server = createServer(async ({ url }, response) => {
    const { pathname } = new URL(url, "http://localhost");
    const name = pathname === "/" ? "index.html" : pathname;
    try {
      const content = await readFile(join(import.meta.dirname, "dist", name));
      response.setHeader("content-type", types[extname(name)]).end(content);
    } catch {
      response.writeHead(404).end();
    }
  });
  await new Promise((done, fail) => server.on("error", fail).listen(port, "127.0.0.1", done));
  return server;
}

/** Saves what the page shows, once for each colour scheme. */
async function takePictures(page, picture) {
  const { dir, name, ext } = parse(picture);
  for (const colorScheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme });
    await page.screenshot({ path: join(dir, `${name}-${colorScheme}${ext}`), fullPage: true });
  }
}

async function run({ addr, port, screenshot }, command, file) {
  const server = await serve(Number(port));
  const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: flags });
  try {
    const page = await browser.newPage(screenshot && { viewport: phone });
    const complaints = [];
    page.on("pageerror", (error) => complaints.push(error.message));
    const query = new URLSearchParams({ addr: `http://${addr}` });
    await page.goto(`http://127.0.0.1:${server.address().port}/?${query}`);
    const lines = await commands[command](page, file);
    if (screenshot) {
      await takePictures(page, screenshot);
    }
    if (complaints.length > 0) {
      throw new Error(complaints.join("\n"));
    }
    return lines;
  } finally {
    await browser.close();
    server.close();
  }
}

function readArguments() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      addr: { type: "string", default: "127.0.0.1:8001" },
      models: { type: "string" },
      port: { type: "string", default: "0" },
      screenshot: { type: "string" },
    },
  });
  if (values.screenshot && positionals.length === 0) {
    positionals.push("page", join(import.meta.dirname, "README.md"));
  }
  const [command, ...files] = positionals;
  const wanted = Object.hasOwn(commands, command) ? commands[command].length - 1 : NaN;
  if (files.length !== wanted || (values.screenshot && command !== "page")) {
    throw new Error("wrong arguments");
  }
  return [values, command, ...files];
}

let chosen;
try {
  chosen = readArguments();
} catch (error) {
  console.error(`${error.message}\n\n${usage}`);
  process.exit(2);
}
try {
  console.log((await run(...chosen)).join("\n"));
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
}
