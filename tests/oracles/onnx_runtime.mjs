// Runs ONNX models by ONNX Runtime on NumPy arrays of float32:
//
//   node onnx_runtime.mjs MODEL X.npy Y.npy [MODEL X.npy Y.npy ...]
//
// The runtime is the npm package onnxruntime-node of the folder $EVENKEEL_ORT, where that is set, else onnxruntime-web as
// scripts/get-onnx-oracles.sh puts it. Exit 77: neither is there.
import { readFileSync, writeFileSync, existsSync } from "node:fs";
import { createRequire } from "node:module";
import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

async function runtime() {
    const { EVENKEEL_ORT: folder, EVENKEEL_ORACLES_DIR, XDG_CACHE_HOME } = process.env;
    if (folder) return createRequire(join(resolve(folder), "package.json"))("onnxruntime-node");
    const cache = EVENKEEL_ORACLES_DIR || join(XDG_CACHE_HOME || join(homedir(), ".cache"), "evenkeel", "onnx");
    const bundle = join(cache, "ort.wasm.bundle.min.mjs");
    if (!existsSync(bundle)) {
        console.error(`onnx_runtime.mjs: no ONNX Runtime in ${cache}: scripts/get-onnx-oracles.sh puts it there`);
        process.exit(77);
    }
    const ort = await import(pathToFileURL(bundle));
    ort.env.wasm.numThreads = 1;
    ort.env.wasm.wasmBinary = readFileSync(join(cache, "ort-wasm-simd-threaded.wasm"));
    return ort;
}

function readArray(path) {
    const bytes = readFileSync(path), long = bytes[6] > 1;
    const start = (long ? 12 : 10) + (long ? bytes.readUInt32LE(8) : bytes.readUInt16LE(8));
    const header = bytes.toString("latin1", 0, start);
    if (!/'descr': '<f4'.*'fortran_order': False/.test(header)) throw new Error(`${path}: not float32 in rows`);
    const shape = header.match(/'shape': \(([^)]*)\)/)[1].split(",").filter((d) => d.trim()).map(Number);
    return { shape, data: new Float32Array(bytes.buffer.slice(bytes.byteOffset + start, bytes.byteOffset + bytes.length)) };
}

function writeArray(path, shape, data) {
    const dict = `{'descr': '<f4', 'fortran_order': False, 'shape': (${shape.map((d) => d + ",").join(" ")}), }`;
    const header = dict.padEnd(Math.ceil((dict.length + 11) / 64) * 64 - 11) + "\n";
    const start = Buffer.from("\x93NUMPY\x01\x00\x00\x00" + header, "latin1");
    start.writeUInt16LE(header.length, 8);
    writeFileSync(path, Buffer.concat([start, Buffer.from(data.buffer, data.byteOffset, data.byteLength)]));
}

const ort = await runtime();
const files = process.argv.slice(2);
if (files.length === 0 || files.length % 3) {
    console.error("usage: node onnx_runtime.mjs MODEL X.npy Y.npy [MODEL X.npy Y.npy ...]");
    process.exit(2);
}
for (let i = 0; i < files.length; i += 3) {
    const [model, x, y] = files.slice(i, i + 3);
    try {
        const session = await ort.InferenceSession.create(new Uint8Array(readFileSync(model)), { graphOptimizationLevel: "all" });
        const { shape, data } = readArray(x);
        const outputs = await session.run({ [session.inputNames[0]]: new ort.Tensor("float32", data, shape) });
        const output = outputs[session.outputNames[0]];
        writeArray(y, output.dims, output.data);
    } catch (error) {
        console.error(`onnx_runtime.mjs: ${model}: ${error.message}`);
        process.exit(1);
    }
}
