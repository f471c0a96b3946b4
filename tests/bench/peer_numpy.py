"""The workloads of the benchmark with NumPy: worker.cpp and workloads.hpp in Python, the networks by hand."""
import argparse
import json
import math
import sys
import time

import numpy as np

ADAM_BETA1, ADAM_BETA2, ADAM_EPSILON = 0.9, 0.999, 1e-8
HEAVY_BALL = 0.9
KEEP = 0.8
LAMBDA = 1e-4
NORM_EPSILON, NORM_MOMENTUM = 1e-5, 0.1
W4_SIZE = 1 << 22
CHECKED_STEPS = 3
STREAM_X, STREAM_Y, STREAM_MASK, PARAMETER_STREAM = 0, 1, 2, 16


# ---- data


def word(stream, count):
    z = (np.uint64(stream) << np.uint64(32)) + np.arange(1, count + 1, dtype=np.uint64)
    z *= np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def unit(stream, count):
    return (word(stream, count) >> np.uint64(40)).astype(np.float64) * 2.0**-24


def uniform(shape, stream, limit, offset=0.0, dtype=np.float32):
    numbers = offset + limit * (2 * unit(stream, math.prod(shape)) - 1)
    return numbers.astype(dtype).reshape(shape)


def classes(count, stream, number):
    return ((word(stream, count) >> np.uint64(32)) % np.uint64(number)).astype(np.int64)


def given_mask(shape, stream):
    return (unit(stream, math.prod(shape)) < KEEP).astype(np.float32).reshape(shape)


def network(workload, small):
    """Units, batch, learning rate."""
    if workload == "W1":
        return [2, 5, 2, 1], 64, 1e-3
    if workload == "W2":
        return [784, 512, 512, 10], 128, 1e-3
    if workload == "W3":
        return ([256, 1024, 1024, 250], 128, 0.1) if small else ([1024, 4096, 4096, 1000], 512, 0.1)
    return [64] * 101, 32, 0.1


def parameters(workload, units):
    """Names and initial values."""
    names, values = [], []

    def add(name, shape, limit, offset=0.0):
        dtype = np.float64 if workload == "W1" else np.float32
        values.append(uniform(shape, PARAMETER_STREAM + len(names), limit, offset, dtype))
        names.append(name)

    for i in range(1, len(units)):
        fan_in, fan_out = units[i - 1], units[i]
        limit = math.sqrt((3 if workload == "W6" else 6) / fan_in)
        add(f"w{i}", (fan_out, fan_in) if workload == "W1" else (fan_in, fan_out), limit)
        add(f"b{i}", (fan_out, 1) if workload == "W1" else (fan_out,), 0.1)
        if workload == "W2" and i + 1 < len(units):
            add(f"gamma{i}", (fan_out,), 0.1, 1.0)
            add(f"beta{i}", (fan_out,), 0.1)
    return names, values


# ---- networks: step() is forward, backward, update, and returns the loss


class Training:
    def __init__(self, options):
        self.workload = options.workload
        self.units, self.batch, self.rate = network(options.workload, options.small)
        self.names, values = parameters(options.workload, self.units)
        # All parameters in one array, so that an optimizer is a few calls; p and g are views.
        self.w = np.concatenate([value.ravel() for value in values])
        self.dw = np.zeros_like(self.w)
        self.p, self.g = [], []
        begin = 0
        for value in values:
            end = begin + value.size
            self.p.append(self.w[begin:end].reshape(value.shape))
            self.g.append(self.dw[begin:end].reshape(value.shape))
            begin = end
        self.v = np.zeros_like(self.w) if self.workload != "W6" else None
        self.s = np.zeros_like(self.w) if self.workload in ("W1", "W2") else None
        self.steps = 0

    def adam(self):
        self.steps += 1
        scale = self.rate / (1 - ADAM_BETA1**self.steps)
        correct = 1 / (1 - ADAM_BETA2**self.steps)
        self.v *= ADAM_BETA1
        self.v += (1 - ADAM_BETA1) * self.dw
        self.s *= ADAM_BETA2
        self.s += (1 - ADAM_BETA2) * (self.dw * self.dw)
        self.w -= scale * self.v / (np.sqrt(correct * self.s) + ADAM_EPSILON)

    def momentum(self):
        self.v *= HEAVY_BALL
        self.v += self.dw
        self.w -= self.rate * self.v

    def descent(self):
        self.w -= self.rate * self.dw

    def gradients(self, write):
        self.step()
        for name, g in zip(self.names, self.g):
            write(name, g)

    def weights(self, write):
        for name, w in zip(self.names, self.p):
            write(name, w)


class CourseNet(Training):
    def __init__(self, options):
        super().__init__(options)
        self.x = uniform((2, self.batch), STREAM_X, 1, dtype=np.float64)
        self.y = classes(self.batch, STREAM_Y, 2).astype(np.float64).reshape(1, -1)

    def step(self):
        w1, b1, w2, b2, w3, b3 = self.p
        h1 = np.maximum(w1 @ self.x + b1, 0)
        h2 = np.maximum(w2 @ h1 + b2, 0)
        z = w3 @ h2 + b3
        small = np.exp(-np.abs(z))
        loss = float(np.mean(np.maximum(z, 0) - z * self.y + np.log1p(small)))
        dz = (np.where(z > 0, 1, small) / (1 + small) - self.y) / self.batch
        dh2 = (w3.T @ dz) * (h2 > 0)
        dh1 = (w2.T @ dh2) * (h1 > 0)
        for i, (d, x) in enumerate([(dh1, self.x), (dh2, h1), (dz, h2)]):
            np.matmul(d, x.T, out=self.g[2 * i])
            np.sum(d, axis=1, keepdims=True, out=self.g[2 * i + 1])
        self.adam()
        return loss


class Classifier(Training):
    """W2 (normalized) and W3."""

    def __init__(self, options):
        super().__init__(options)
        self.normalized = options.workload == "W2"
        self.x = uniform((self.batch, self.units[0]), STREAM_X, 1)
        self.y = classes(self.batch, STREAM_Y, self.units[-1])
        self.rows = np.arange(self.batch)
        self.random = np.random.default_rng(0)
        hidden = self.units[1:-1]
        self.running = [[np.zeros(n, np.float32), np.ones(n, np.float32)] for n in hidden]
        self.masks = None
        if options.check is not None:
            self.masks = [given_mask((self.batch, n), STREAM_MASK + i) for i, n in enumerate(hidden)]

    def weights(self, write):
        super().weights(write)
        if self.normalized:
            for _, variance in self.running:
                write("variance", variance)

    def step(self):
        each = 4 if self.normalized else 2
        last = len(self.units) - 2
        outputs, normals, inverses = [self.x], [], []
        for i in range(last):
            h = outputs[-1] @ self.p[each * i]
            h += self.p[each * i + 1]
            if self.normalized:
                gamma, beta = self.p[each * i + 2], self.p[each * i + 3]
                mean = h.mean(axis=0)
                h -= mean
                variance = np.square(h).mean(axis=0)
                inverse = 1 / np.sqrt(variance + np.float32(NORM_EPSILON))
                h *= inverse
                running = self.running[i]
                running[0] += NORM_MOMENTUM * (mean - running[0])
                running[1] += NORM_MOMENTUM * (variance * (self.batch / (self.batch - 1)) - running[1])
                normals.append(h)
                inverses.append(inverse)
                h = h * gamma
                h += beta
            np.maximum(h, 0, out=h)
            if self.normalized:
                if self.masks is None:
                    h *= self.random.random(h.shape, dtype=np.float32) < KEEP
                else:
                    h *= self.masks[i]
                h *= np.float32(1 / KEEP)
            outputs.append(h)
        z = outputs[-1] @ self.p[each * last]
        z += self.p[each * last + 1]
        z -= z.max(axis=1, keepdims=True)
        picked = z[self.rows, self.y]
        d = np.exp(z)
        sums = d.sum(axis=1, keepdims=True)
        loss = float(np.mean(np.log(sums[:, 0]) - picked))
        d /= sums
        d[self.rows, self.y] -= 1
        d /= self.batch

        for i in range(last, -1, -1):
            w = self.p[each * i]
            dw = np.matmul(outputs[i].T, d, out=self.g[each * i])
            if self.normalized and i < last:
                flat = w.ravel()
                loss += LAMBDA * float(flat @ flat)
                dw += np.float32(2 * LAMBDA) * w
            np.sum(d, axis=0, out=self.g[each * i + 1])
            if i == 0:
                break
            d = d @ w.T
            d *= outputs[i] > 0
            if self.normalized:
                d *= np.float32(1 / KEEP)
                normal = normals[i - 1]
                before = each * (i - 1)
                dgamma = np.sum(d * normal, axis=0, out=self.g[before + 2])
                dbeta = np.sum(d, axis=0, out=self.g[before + 3])
                d -= normal * (dgamma / self.batch)
                d -= dbeta / self.batch
                d *= self.p[before + 2] * inverses[i - 1]
        if self.normalized:
            self.adam()
        else:
            self.momentum()
        return loss


class Chain(Training):
    def __init__(self, options):
        super().__init__(options)
        self.x = uniform((self.batch, self.units[0]), STREAM_X, 1)
        self.y = uniform((self.batch, self.units[-1]), STREAM_Y, 1)

    def step(self):
        outputs = [self.x]
        for i in range(0, len(self.p), 2):
            h = outputs[-1] @ self.p[i]
            h += self.p[i + 1]
            outputs.append(np.tanh(h, out=h))
        d = outputs[-1] - self.y
        loss = float(np.mean(np.square(d)))
        d *= np.float32(2 / d.size)
        for i in range(len(self.p) // 2 - 1, -1, -1):
            d *= 1 - np.square(outputs[i + 1])
            np.matmul(outputs[i].T, d, out=self.g[2 * i])
            np.sum(d, axis=0, out=self.g[2 * i + 1])
            if i > 0:
                d = d @ self.p[2 * i].T
        self.descent()
        return loss


class Elementwise:
    def __init__(self, options):
        del options
        self.inputs = [uniform((W4_SIZE,), STREAM_X + i, 2) for i in range(3)]
        self.g = []

    def step(self):
        a, b, c = self.inputs
        s = 1 / (1 + np.exp(-(a * b + c)))
        t = np.tanh(a - b)
        r = np.maximum(c, 0)
        e = np.exp(-a * a)
        loss = float((s * t * r + e).sum())
        dz = s * (1 - s) * t * r
        dd = s * (1 - t * t) * r
        self.g = [dz * b + dd - 2 * a * e, dz * a - dd, dz + s * t * (c > 0)]
        return loss

    def gradients(self, write):
        self.step()
        for name, g in zip("abc", self.g):
            write(name, g)

    def weights(self, write):
        pass


PROGRAMS = {"W1": CourseNet, "W2": Classifier, "W3": Classifier, "W4": Elementwise, "W6": Chain}


# ---- as worker.cpp


def time_steps(options):
    run = PROGRAMS[options.workload](options)
    begin = time.perf_counter()
    steps = 0
    while steps < 2 or time.perf_counter() - begin < options.seconds / 2:
        loss = run.step()
        steps += 1
    again = time.perf_counter()
    loss = run.step()
    block = int(min(max(2e-3 / max(time.perf_counter() - again, 1e-9), 1), 1e6))
    times = []
    begin = time.perf_counter()
    while not times or time.perf_counter() - begin < options.seconds:
        start = time.perf_counter()
        for _ in range(block):
            loss = run.step()
        times.append((time.perf_counter() - start) / block)
    times.sort()
    return {"step_us": times[len(times) // 2] * 1e6, "steps": len(times) * block, "loss": loss}


def check(options):
    tensors = []
    with open(options.check, "wb") as file:

        def write(name, array):
            file.write(np.ascontiguousarray(array).tobytes())
            tensors.append({"name": name, "count": array.size, "bytes": array.itemsize})

        PROGRAMS[options.workload](options).gradients(write)
        run = PROGRAMS[options.workload](options)
        losses = [run.step() for _ in range(CHECKED_STEPS)]
        run.weights(write)
    return {"losses": losses, "tensors": tensors}


def peak_rss_mb():
    with open("/proc/self/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return 0


def main():
    parser = argparse.ArgumentParser(description="One program of the benchmark. Started by the driver: ./tests/run bench")
    parser.add_argument("workload", choices=sorted(PROGRAMS))
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--check", help="instead of timing, write gradients and updated weights to this file")
    parser.add_argument("--threads", type=int, default=1, help="(its BLAS has an environment variable)")
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args()
    out = time_steps(options) if options.check is None else check(options)
    out["version"] = f"NumPy {np.__version__}, Python {sys.version.split()[0]}"
    out["peak_rss_mb"] = peak_rss_mb()
    print(json.dumps(out))


if __name__ == "__main__":
    main()
