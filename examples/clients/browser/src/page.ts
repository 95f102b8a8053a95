// The page: takes a file, asks the server of the address field about it, and shows the answers.

import { Code, ConnectError } from "@connectrpc/connect";
import "./page.css";
import { connect, type Failure, type Onnxd } from "./onnxd";
import type { Score } from "./magika";
import { STEP } from "./silero";
import { isWav, RATE } from "./wav";

declare global {
  interface Window {
    onnxd: Onnxd;
  }
}

const address = element("address") as HTMLInputElement;
const file = element("file") as HTMLInputElement;

/** Calls go to the server of the field from here on. */
function useAddress() {
  window.onnxd = connect(address.value.replace(/\/+$/, ""));
}

/** Takes back the calls for the file before, or for this one. */
let running = new AbortController();

async function examine(file: File) {
  if (!address.reportValidity()) {
    return;
  }
  running.abort();
  const { signal } = (running = new AbortController());
  const { onnxd } = window; // stays the same for this file if the address changes
  clear();
  try {
    const bytes = new Uint8Array(await file.arrayBuffer());
    const scores = await onnxd.classify(bytes, signal);
    showType(scores);
    if (isWav(bytes)) {
      await onnxd.speech(bytes, signal, showSpeech);
    }
  } catch (error) {
    // A newer file has the page to itself.
    if (signal === running.signal) {
      showFailure(onnxd.explain(error));
    }
  }
  if (signal === running.signal) {
    element("work").hidden = true;
  }
}

function clear() {
  for (const id of ["failure", "type", "speech"]) {
    element(id).hidden = true;
  }
  element("progress").removeAttribute("value");
  element("work").hidden = false;
}

function showType(scores: Score[]) {
  const rows = scores.slice(0, 5).map(({ label, score }) => {
    const row = document.createElement("li");
    const [name, bar, number] = ["span", "i", "b"].map((tag) => document.createElement(tag));
    name!.textContent = label;
    bar!.style.setProperty("--score", String(score));
    number!.textContent = score.toFixed(4);
    row.append(name!, bar!, number!);
    return row;
  });
  const [best] = scores;
  element("label").textContent = best?.label ?? "";
  element("score").textContent = best?.score.toFixed(4) ?? "";
  element("scores").replaceChildren(...rows);
  element("type").hidden = false;
}

/** One column for each step, as high as the probability; steps to come leave room. */
function showSpeech(probabilities: number[], total: number) {
  const voiced = probabilities.filter((probability) => probability >= 0.5);
  const columns = probabilities.map((probability, i) => `V${1 - probability}H${i + 1}`);
  element("steps").textContent = `${probabilities.length} steps, ${voiced.length} with speech`;
  element("plot").setAttribute("viewBox", `0 0 ${total} 1`);
  element("area").setAttribute("d", `M0 1${columns.join("")}V1Z`);
  element("threshold").setAttribute("x2", String(total));
  element("seconds").textContent = `${((total * STEP) / RATE).toFixed(1)} s`;
  element("speech").hidden = false;

  element("progress").setAttribute("max", String(total));
  element("progress").setAttribute("value", String(probabilities.length));
}

function showFailure({ code, message }: Failure) {
  element("code").textContent = code ?? "";
  element("message").textContent = message;
  element("failure").hidden = false;
}

function element(id: string): HTMLElement {
  return document.getElementById(id)!;
}

address.value = new URLSearchParams(location.search).get("addr") ?? "http://127.0.0.1:8001";
address.addEventListener("input", useAddress);
useAddress();

element("cancel").addEventListener("click", () => {
  running.abort(new ConnectError("stopped with the button", Code.Canceled));
});

file.addEventListener("change", () => {
  const [chosen] = file.files ?? [];
  if (chosen) {
    examine(chosen);
  }
});
// The same file can be chosen again, for example after a failure.
file.addEventListener("click", () => {
  file.value = "";
});

// The whole page takes a dropped file, because beside the frame it would open in its place.
for (const type of ["dragover", "dragleave", "drop"]) {
  addEventListener(type, (event) => {
    event.preventDefault();
    element("drop").classList.toggle("over", type === "dragover");
  });
}
addEventListener("drop", ({ dataTransfer }) => {
  const [dropped] = dataTransfer?.files ?? [];
  if (dropped) {
    examine(dropped);
  }
});
