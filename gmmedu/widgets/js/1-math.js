// Closed forms, in float64. A covariance is [[a, b], [b, c]]; its factor [p, q, r] is the lower
// Cholesky factor [[p, 0], [q, r]]; a mixture is {weights, means, covariances} as in Python.

const LOG_2PI = Math.log(2 * Math.PI);
/** Numbers from 0 to 1 that look random and follow from the seed (mulberry32). */
const randomFrom = (seed) => () => {
  seed = (seed + 0x6d2b79f5) | 0;
  let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
};
/** Squared Mahalanobis radius of the ellipse that holds this mass of a Gaussian in the plane. */
const radius2 = (mass) => -2 * Math.log1p(-mass);
const logSumExp = (a) => {
  const top = Math.max(...a);
  return top === -Infinity ? top : top + Math.log(a.reduce((s, v) => s + Math.exp(v - top), 0));
};
const softmax = (a) => {
  const all = logSumExp(a);
  return a.map((v) => Math.exp(v - all));
};

/** Standard deviations along the principal axes, the longer first, and the angle of the longer. */
function principal([[a, b], [, c]]) {
  const half = Math.hypot((a - c) / 2, b);
  const long = (a + c) / 2 + half;
  const short = long > 0 ? (a * c - b * b) / long : 0;
  return { sds: [Math.sqrt(long), Math.sqrt(Math.max(short, 0))], angle: Math.atan2(2 * b, a - c) / 2 };
}
function covarianceOf([s, t], angle) {
  const u = Math.cos(angle), v = Math.sin(angle), b = (s * s - t * t) * u * v;
  return [[s * s * u * u + t * t * v * v, b], [b, s * s * v * v + t * t * u * u]];
}
/** The factor, or null where the matrix is not positive definite. */
function factorOf([[a, b], [, c]]) {
  const p = Math.sqrt(a), q = b / p, r = Math.sqrt(c - q * q);
  return p > 0 && r > 0 && Number.isFinite(p + q + r) ? [p, q, r] : null;
}
const productOf = ([p, q, r]) => [[p * p, p * q], [p * q, q * q + r * r]];
function whiten([x, y], [m, n], [p, q, r]) {
  const u = (x - m) / p;
  return [u, (y - n - q * u) / r];
}
function logDensity(x, mean, factor) {
  const [u, v] = whiten(x, mean, factor);
  return -LOG_2PI - Math.log(factor[0]) - Math.log(factor[2]) - (u * u + v * v) / 2;
}

/** Responsibilities (N arrays of K), log densities of the points, and the mean NLL, in nats. */
function eStep(points, { weights, means, covariances }) {
  const factors = covariances.map(factorOf), shares = weights.map(Math.log), logs = [];
  const r = points.map((x) => {
    const a = shares.map((w, k) => w + logDensity(x, means[k], factors[k]));
    const all = logSumExp(a);
    logs.push(all);
    return a.map((v) => Math.exp(v - all));
  });
  return { r, logs, nll: -logs.reduce((s, v) => s + v / points.length, 0) };
}
/** One iteration of EM; no standard deviation ends below the floor; a component without points stays. */
function emStep(points, mixture, floor = 0) {
  const { r } = eStep(points, mixture), n = points.length;
  const counts = mixture.weights.map((_, k) => r.reduce((s, row) => s + row[k], 0));
  const average = (k, f) => points.reduce((s, x, i) => s + r[i][k] * f(x), 0) / counts[k];
  const empty = (k) => !(counts[k] > 1e-290);
  // Residuals from the old mean: nothing cancels for points far from the origin.
  const means = mixture.means.map(([p, q], k) => (empty(k) ? [p, q] : [p + average(k, (x) => x[0] - p), q + average(k, (x) => x[1] - q)]));
  const covariances = means.map(([p, q], k) => {
    if (empty(k)) return raise(mixture.covariances[k], floor);
    const b = average(k, (x) => (x[0] - p) * (x[1] - q));
    return raise([[average(k, (x) => (x[0] - p) ** 2), b], [b, average(k, (x) => (x[1] - q) ** 2)]], floor);
  });
  return { weights: counts.map((c) => c / n), means, covariances };
}
function raise(covariance, floor) {
  const { sds, angle } = principal(covariance);
  return sds[1] >= floor ? covariance : covarianceOf(sds.map((s) => Math.max(s, floor)), angle);
}
/** Slopes of the mean NLL in the logits, the means and theta = (log p, q, log r) of the factors. */
function gradient(points, { weights, means, covariances }) {
  const { r } = eStep(points, { weights, means, covariances }), n = points.length;
  const factors = covariances.map(factorOf);
  return means.reduce((all, mean, k) => {
    const [p, q, s] = factors[k];
    let count = 0, fu = 0, fv = 0, uu = 0, uv = 0, vv = 0;
    points.forEach((x, i) => {
      const w = r[i][k], [u, v] = whiten(x, mean, factors[k]);
      count += w; fu += w * u; fv += w * v; uu += w * u * u; uv += w * u * v; vv += w * v * v;
    });
    const up = ([a, b]) => [a / p - (q * b) / (p * s), b / s]; // W^T
    const first = up([fu, fv]), left = up([count - uu, -uv]), right = up([-uv, count - vv]);
    all.logits.push(weights[k] - count / n);
    all.means.push(first.map((v) => -v / n));
    all.theta.push([(p * left[0]) / n, left[1] / n, (s * right[1]) / n]);
    return all;
  }, { logits: [], means: [], theta: [] });
}
/** One step of plain gradient descent in logits, means and theta. */
function gradientStep(points, mixture, rate) {
  const g = gradient(points, mixture), down = (v, s) => v - rate * s;
  return {
    weights: softmax(mixture.weights.map((w, k) => down(Math.log(w), g.logits[k]))),
    means: mixture.means.map((m, k) => m.map((v, d) => down(v, g.means[k][d]))),
    covariances: mixture.covariances.map((c, k) => {
      const [p, q, r] = factorOf(c), [a, b, d] = g.theta[k];
      return productOf([Math.exp(down(Math.log(p), a)), down(q, b), Math.exp(down(Math.log(r), d))]);
    }),
  };
}
/** A mixture in units of the data, and back: x = center + scale * z. */
const toUnits = ({ weights, means, covariances }, center, scale) => ({
  weights,
  means: means.map((m) => m.map((v, d) => (v - center[d]) / scale[d])),
  covariances: covariances.map((c) => c.map((row, i) => row.map((v, j) => v / (scale[i] * scale[j])))),
});
const fromUnits = ({ weights, means, covariances }, center, scale) => ({
  weights,
  means: means.map((m) => m.map((v, d) => center[d] + scale[d] * v)),
  covariances: covariances.map((c) => c.map((row, i) => row.map((v, j) => v * scale[i] * scale[j]))),
});
