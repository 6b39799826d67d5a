// Closed forms, in float64. A covariance is [[a, b], [b, c]]; its factor [p, q, r] is the lower
// Cholesky factor [[p, 0], [q, r]]; a mixture is {weights, means, covariances} as in Python.

const { abs, min, max, sqrt, log, log10, exp, floor, round, hypot, cos, sin, PI } = Math;
const LOG_2PI = log(2 * PI);
const clip = (v, low, high) => min(max(v, low), high);
/** To so many significant digits. */
const rounded = (v, digits) => Number(v.toPrecision(digits));
/** Whether there are as many numbers as ranges [low, high, whole], and each is in its own. */
const within = (numbers, ranges) => numbers.length === ranges.length && ranges.every(([low, high, whole], i) => numbers[i] >= low && numbers[i] <= high && !(whole && numbers[i] % 1));
const sum = (list, f = (v) => v) => list.reduce((total, v, i) => total + f(v, i), 0);
const times = (n, f) => Array.from({ length: n }, (_, i) => f(i));
/** The ends of n equal parts of an interval. */
const even = (n, low, high) => times(n + 1, (i) => low + ((high - low) * i) / n);
const normal = (x, mean, sd) => exp(-0.5 * ((x - mean) / sd) ** 2 - LOG_2PI / 2) / sd;
/** Numbers from 0 to 1 that look random and follow from the seed (mulberry32). */
const randomFrom = (seed) => () => {
  seed = (seed + 0x6d2b79f5) | 0;
  let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
};
/** Mahalanobis radius of the ellipse that holds this mass of a Gaussian in the plane. */
const radiusOf = (mass) => sqrt(-2 * Math.log1p(-mass));
const logSumExp = (a) => {
  const top = max(...a);
  return top === -Infinity ? top : top + log(sum(a, (v) => exp(v - top)));
};
const softmax = (a, all = logSumExp(a)) => a.map((v) => exp(v - all));

/** Standard deviations along the principal axes, the longer first, and the angle of the longer. */
function principal([[a, b], [, c]]) {
  const long = (a + c) / 2 + hypot((a - c) / 2, b), short = max((a * c - b * b) / long || 0, 0);
  return { sds: [sqrt(long), sqrt(short)], angle: Math.atan2(2 * b, a - c) / 2 };
}
function covarianceOf([s, t], angle) {
  const u = cos(angle), v = sin(angle), b = (s * s - t * t) * u * v;
  return [[s * s * u * u + t * t * v * v, b], [b, s * s * v * v + t * t * u * u]];
}
/** The factor, or null where the matrix is not positive definite. */
function factorOf([[a, b], [, c]]) {
  const p = sqrt(a), q = b / p, r = sqrt(c - q * q);
  return p > 0 && r > 0 && Number.isFinite(p + q + r) ? [p, q, r] : null;
}
const productOf = ([p, q, r]) => [[p * p, p * q], [p * q, q * q + r * r]];
function whiten([x, y], [m, n], [p, q, r]) {
  const u = (x - m) / p;
  return [u, (y - n - q * u) / r];
}
function logDensity(x, mean, factor) {
  const [u, v] = whiten(x, mean, factor);
  return -LOG_2PI - log(factor[0]) - log(factor[2]) - (u * u + v * v) / 2;
}

/** Responsibilities (N arrays of K), log densities of the points, and the mean NLL, in nats. */
function eStep(points, { weights, means, covariances }) {
  const factors = covariances.map(factorOf), shares = weights.map(log), logs = [];
  const r = points.map((x) => {
    const a = shares.map((w, k) => w + logDensity(x, means[k], factors[k])), all = logSumExp(a);
    logs.push(all);
    return softmax(a, all);
  });
  return { r, logs, nll: -sum(logs) / points.length };
}
/** One iteration of EM; no standard deviation ends below the floor; a component without points stays. */
function emStep(points, mixture, floor = 0) {
  const { r } = eStep(points, mixture), weights = [], means = [], covariances = [];
  mixture.means.forEach((old, k) => {
    const count = sum(r, (row) => row[k]), empty = !(count > 1e-290);
    const average = (f) => sum(points, (x, i) => r[i][k] * f(x)) / count;
    // Residuals from the old mean: nothing cancels for points far from the origin.
    const mean = empty ? old : old.map((m, d) => m + average((x) => x[d] - m));
    const spread = (d, e) => average((x) => (x[d] - mean[d]) * (x[e] - mean[e])), b = spread(0, 1);
    weights.push(count / points.length);
    means.push(mean);
    covariances.push(raise(empty ? mixture.covariances[k] : [[spread(0, 0), b], [b, spread(1, 1)]], floor));
  });
  return { weights, means, covariances };
}
function raise(covariance, floor) {
  const { sds, angle } = principal(covariance);
  return sds[1] >= floor ? covariance : covarianceOf(sds.map((s) => max(s, floor)), angle);
}
/** Slopes of the mean NLL in the logits, the means and theta = (log p, q, log r) of the factors. */
function gradient(points, mixture) {
  const { r } = eStep(points, mixture), n = points.length, logits = [], means = [], theta = [];
  mixture.means.forEach((mean, k) => {
    const factor = factorOf(mixture.covariances[k]), [p, q, s] = factor, white = points.map((x) => whiten(x, mean, factor));
    const total = (f) => sum(white, (z, i) => r[i][k] * f(z)) / n, count = total(() => 1), uv = total(([u, v]) => u * v);
    // By the transpose of the matrix that whitens.
    const up = (a, b) => [a / p - (q * b) / (p * s), b / s];
    const left = up(count - total(([u]) => u * u), -uv), right = up(-uv, count - total(([, v]) => v * v));
    logits.push(mixture.weights[k] - count);
    means.push(up(-total(([u]) => u), -total(([, v]) => v)));
    theta.push([p * left[0], left[1], s * right[1]]);
  });
  return { logits, means, theta };
}
/** One step of plain gradient descent in logits, means and theta. */
function gradientStep(points, { weights, means, covariances }, rate) {
  const g = gradient(points, { weights, means, covariances });
  return {
    weights: softmax(weights.map((w, k) => log(w) - rate * g.logits[k])),
    means: means.map((mean, k) => mean.map((m, d) => m - rate * g.means[k][d])),
    covariances: covariances.map((c, k) => {
      const [p, q, r] = factorOf(c), [a, b, d] = g.theta[k].map((slope) => rate * slope);
      return productOf([p * exp(-a), q - b, r * exp(-d)]);
    }),
  };
}
// A mixture in units of the data, and back: x = center + scale * z.
const converter = (mean, area) => ({ weights, means, covariances = [] }, { center, scale }) => ({
  weights,
  means: means.map((m) => m.map((v, d) => mean(v, center[d], scale[d]))),
  covariances: covariances.map((c) => c.map((row, i) => row.map((v, j) => area(v, scale[i] * scale[j])))),
});
const toUnits = converter((x, c, s) => (x - c) / s, (v, a) => v / a), fromUnits = converter((z, c, s) => c + s * z, (v, a) => v * a);

/** Segments of the lines where heights[i][j], over xs[i] and ys[j], cross a level: marching squares. */
function levelLines(xs, ys, heights, level) {
  const lines = [];
  for (let i = 0; i + 1 < xs.length; i++) for (let j = 0; j + 1 < ys.length; j++) {
    const above = sum([heights[i][j], heights[i + 1][j], heights[i + 1][j + 1], heights[i][j + 1]], (v) => v > level);
    if (above % 4 === 0) continue;
    const around = [[i, j], [i + 1, j], [i + 1, j + 1], [i, j + 1], [i, j]], up = around.map(([p, q]) => heights[p][q] - level);
    const cuts = [0, 1, 2, 3].filter((k) => up[k] > 0 !== up[k + 1] > 0).map((k) => {
      const share = up[k] / (up[k] - up[k + 1]), [[p, q], [r, s]] = [around[k], around[k + 1]];
      return [xs[p] + share * (xs[r] - xs[p]), ys[q] + share * (ys[s] - ys[q])];
    });
    for (let k = 0; k < cuts.length; k += 2) lines.push(cuts.slice(k, k + 2));
  }
  return lines;
}

/** f(state), kept as long as these parts of the state are the same objects. */
function kept(names, f) {
  let before = [], last;
  return (state) => {
    const now = names.map((name) => state[name]);
    if (now.some((v, i) => v !== before[i])) [last, before] = [f(state), now];
    return last;
  };
}
