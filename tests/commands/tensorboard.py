"""Event files, read without any code of ours or TensorBoard's: framing, checksums, protocol buffers, and the numbers.

    tensorboard.py EVENTS LOG.jsonl INSPECT.json     the last is what inspect --json says of the trained model
"""
import json
import math
import shutil
import struct
import subprocess
import sys


def crc32c(data):
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    crc = 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def masked(data):
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def records(data):
    at = 0
    while at < len(data):
        length, check = struct.unpack_from("<QI", data, at)
        assert check == masked(data[at:at + 8]), f"the length at {at} has a wrong checksum"
        body = data[at + 12:at + 12 + length]
        assert len(body) == length, f"the record at {at} is cut off"
        assert struct.unpack_from("<I", data, at + 12 + length)[0] == masked(body), f"the record at {at} has a wrong checksum"
        yield body
        at += 16 + length


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def fields(data):
    """(field number, value) of a message: a whole number, a float, or bytes."""
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        kind = key & 7
        if kind == 0:
            value, at = varint(data, at)
        elif kind == 1:
            value, at = struct.unpack_from("<d", data, at)[0], at + 8
        elif kind == 5:
            value, at = struct.unpack_from("<f", data, at)[0], at + 4
        else:
            assert kind == 2, f"wire type {kind}"
            length, at = varint(data, at)
            value, at = data[at:at + length], at + length
            assert len(value) == length
        yield key >> 3, value


def packed(data):
    return list(struct.unpack(f"<{len(data) // 8}d", data))


def histogram(data):
    h = dict(fields(data))
    return {"min": h[1], "max": h[2], "num": h[3], "sum": h[4], "squares": h[5], "limit": packed(h[6]), "bucket": packed(h[7])}


def read(path):
    scalars, histograms, times = {}, {}, []
    data = open(path, "rb").read()
    for number, body in enumerate(records(data)):
        event = dict(fields(body))
        times.append(event[1])
        if number == 0:
            assert event[3] == b"brain.Event:2", event
            continue
        step = event[2]
        for key, value in fields(event[5]):
            assert key == 1
            value = dict(fields(value))
            tag = value[1].decode()
            by_step = (scalars if 2 in value else histograms).setdefault(tag, {})
            assert step not in by_step, f"{tag} of step {step} comes twice"
            by_step[step] = value[2] if 2 in value else histogram(value[5])
    assert times == sorted(times)
    return scalars, histograms, data


def near(a, b, relative=1e-6):
    return math.isclose(a, b, rel_tol=relative, abs_tol=1e-9)


def check_scalars(scalars, log):
    steps = [line for line in log if line["event"] == "step"]
    epochs = [line for line in log if line["event"] == "epoch"]
    assert list(scalars["step/loss"]) == [line["step"] for line in steps]
    for line in steps:
        assert near(scalars["step/loss"][line["step"]], line["loss"]), line
    assert all(near(rate, 0.1) for rate in scalars["step/learning_rate"].values())
    each = len(steps) // len(epochs)
    for tag, key in (("loss/train", "train_loss"), ("accuracy/train", "train_accuracy"), ("loss/valid", "valid_loss"),
                     ("accuracy/valid", "valid_accuracy"), ("accuracy/test", "test_accuracy"),
                     ("images_per_second", "images_per_second")):
        assert list(scalars[tag]) == [each * (i + 1) for i in range(len(epochs))], (tag, scalars[tag])
        for found, line in zip(scalars[tag].values(), epochs):
            assert near(found, line[key]), (tag, found, line)
    assert "loss/test" in scalars


def check_histogram(h):
    assert near(sum(h["bucket"]), h["num"]), h
    assert all(a < b for a, b in zip(h["limit"], h["limit"][1:])), h
    assert h["min"] <= h["limit"][0] and h["max"] <= h["limit"][-1]
    assert h["squares"] * h["num"] >= h["sum"] ** 2 * (1 - 1e-9)


def check_norm(histograms, model):
    norm = next(layer for layer in model["layers"] if layer["op"] == "batchnorm")
    for tensor in norm["tensors"]:
        if "values" not in tensor:
            continue
        last = list(histograms[f"{tensor['role']}/{norm['label']}"].values())[-1]
        values = [struct.unpack("<f", struct.pack("<f", v))[0] for v in tensor["values"]]
        assert last["num"] == len(values) and near(last["sum"], sum(values)) and near(last["squares"], sum(v * v for v in values))
        assert near(last["min"], min(values)) and near(last["max"], max(values)), tensor
        low = last["min"] if last["min"] < last["max"] else last["min"] - 0.5
        counts, edge = [], -math.inf
        for limit in last["limit"]:
            counts.append(sum(edge < v <= limit for v in values))
            edge = limit
        assert counts == last["bucket"], (low, counts, last)
    assert f"inputs/{norm['label']}" in histograms


def check_protoc(data):
    """Google's own decoder takes each record, and says the same tags."""
    if not shutil.which("protoc"):
        print("without protoc (scripts/install-deps.sh browser): its decoding is not compared")
        return
    for body in list(records(data))[-3:]:
        text = subprocess.run(["protoc", "--decode_raw"], input=body, capture_output=True, check=True).stdout.decode()
        tag = dict(fields(dict(fields(dict(fields(body))[5]))[1]))[1].decode()
        assert f'1: "{tag}"' in text, text


def main():
    events, log, model = sys.argv[1:]
    scalars, histograms, data = read(events)
    check_scalars(scalars, [json.loads(line) for line in open(log)])
    for by_step in histograms.values():
        for h in by_step.values():
            check_histogram(h)
    check_norm(histograms, json.load(open(model)))
    check_protoc(data)


if __name__ == "__main__":
    main()
