// The status page in a real headless browser, against the real server.
//
// LEASEHOLD names the server's binary, CHROMIUM the browser. Nothing is awaited by the clock: every
// step waits for what it expects to see, and the run fails when that does not come.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { chromium } from "playwright-core";

const PATIENCE_MS = 20_000;

/** A port that is free now. */
function freePort() {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

/** A server on a directory; `stop` ends it by its own id. */
async function serve(directory, port, config = "") {
  const file = join(directory, "leasehold.toml");
  await writeFile(file, config);
  const listen = ["--http-listen", `127.0.0.1:${port}`, "--resp-listen", "off"];
  const args = ["serve", "--config", file, "--data-dir", join(directory, "data"), ...listen];
  const child = spawn(process.env.LEASEHOLD, args, {
    stdio: ["ignore", "inherit", "inherit"],
  });
  const ended = new Promise((resolve) => child.once("exit", resolve));
  const url = `http://127.0.0.1:${port}`;
  const late = Date.now() + PATIENCE_MS;
  for (;;) {
    const ready = await fetch(`${url}/readyz`).then((answer) => answer.ok, () => false);
    if (ready) break;
    if (child.exitCode !== null || Date.now() > late) throw new Error("the server is not ready");
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  const stop = async (signal = "SIGTERM") => {
    child.kill(signal);
    await ended;
  };
  return { url, stop };
}

async function post(url, body, headers = {}) {
  const answer = await fetch(url, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body: JSON.stringify(body),
  });
  const text = await answer.text();
  assert.ok(answer.ok, `${url}: ${answer.status} ${text}`);
  return JSON.parse(text);
}

let browser, directory, server, port;

before(async () => {
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM,
    args: ["--no-sandbox", "--disable-dev-shm-usage"],
  });
  directory = await mkdtemp(join(tmpdir(), "leasehold-page-"));
  port = await freePort();
  server = await serve(directory, port);
});

after(async () => {
  await browser?.close();
  await server?.stop();
  await rm(directory, { recursive: true, force: true });
});

/** A page that fails the test when a script on it does. */
async function open(path = "/") {
  const page = await browser.newPage({ viewport: { width: 1280, height: 900 } });
  page.setDefaultTimeout(PATIENCE_MS);
  const errors = [];
  page.on("pageerror", (error) => errors.push(error));
  await page.goto(server.url + path);
  return { page, errors };
}

test("an empty server shows how to begin", async () => {
  const { page, errors } = await open();
  await page.waitForSelector("body[data-state=live]");
  await page.waitForSelector("#locks-empty:visible");
  const hint = await page.textContent("#locks-empty");
  assert.match(hint, /curl .*\/v1\/locks\/demo\/acquire/s);
  assert.deepEqual(errors, []);
  await page.close();
});

test("locks and queues appear, change and go", async () => {
  const { page, errors } = await open();
  await page.waitForSelector("body[data-state=live]");
  const name = "stock/<b>42</b>";
  const lock = `${server.url}/v1/locks/${encodeURIComponent(name)}`;
  const grant = await post(`${lock}/acquire`, { ttl_ms: 600_000, label: "worker-1" });
  await post(`${server.url}/v1/queues/orders/messages`, { body: "order 42" });
  const row = page.locator(`tr[data-lock=${JSON.stringify(name)}]`);
  await row.waitFor();
  assert.match(await row.locator("[data-col=name]").innerText(), /stock\/<b>42<\/b>/);
  assert.match(await row.locator("[data-col=holder]").innerText(), /worker-1/);
  assert.match(await row.locator("[data-col=token]").innerText(), new RegExp(`${grant.token}`));
  const queue = page.locator("tr[data-queue=orders]");
  await queue.waitFor();
  assert.equal((await queue.locator("[data-col=ready]").innerText()).trim(), "1");

  const waiter = post(`${lock}/acquire`, { ttl_ms: 600_000, wait_ms: 60_000, label: "worker-2" });
  await page.waitForFunction(
    (wanted) => {
      const rows = [...document.querySelectorAll("tr[data-lock]")];
      const found = rows.find((each) => each.dataset.lock === wanted);
      return found?.querySelector("[data-col=waiting]")?.textContent.trim() === "1";
    },
    name,
  );
  await post(`${lock}/release`, { token: grant.token, hold: grant.hold });
  const next = await waiter;
  assert.ok(next.token > grant.token);
  await page.waitForFunction(
    () => document.querySelector("tr[data-lock] [data-col=holder]").textContent.includes("worker-2"),
  );
  await post(`${lock}/release`, { token: next.token, hold: next.hold });
  await row.waitFor({ state: "detached" });

  const came = await post(`${server.url}/v1/queues/orders/receive`, {});
  assert.equal(came.deliveries[0].body, "order 42");
  await post(`${server.url}/v1/deliveries/ack`, { receipts: [came.deliveries[0].receipt] });
  await page.waitForFunction(
    () => document.querySelector("tr[data-queue=orders] [data-col=ready]").textContent.trim() === "0",
  );
  assert.deepEqual(errors, []);
  await page.close();
});

test("a filter is kept while the page refreshes", async () => {
  await post(`${server.url}/v1/queues/invoices/messages`, { body: "1" });
  const { page } = await open();
  await page.waitForSelector("tr[data-queue=invoices]");
  await page.fill("#filter", "invo");
  await page.waitForSelector("tr[data-queue=orders]", { state: "hidden" });
  const before = await page.textContent("#updated");
  await page.waitForFunction((seen) => document.querySelector("#updated").textContent !== seen, before);
  assert.ok(await page.isHidden("tr[data-queue=orders]"));
  assert.ok(await page.isVisible("tr[data-queue=invoices]"));
  await page.close();
});

test("a server that dies is shown as lost, and found again", async () => {
  const { page } = await open();
  await page.waitForSelector("body[data-state=live]");
  await server.stop("SIGKILL");
  await page.waitForSelector("body[data-state=lost]");
  server = await serve(directory, port);
  await page.waitForSelector("body[data-state=live]");
  await page.waitForSelector("tr[data-queue=invoices]");
  await page.close();
});

test("the API can be tried from its page", async () => {
  const { page, errors } = await open("/docs");
  await page.waitForFunction(() => document.body.innerText.includes("/v1/locks/{name}/acquire"));
  assert.deepEqual(errors, []);
  await page.close();
});

test("it fits a telephone", async () => {
  const { page } = await open();
  await page.setViewportSize({ width: 360, height: 740 });
  await page.waitForSelector("body[data-state=live]");
  const wide = await page.evaluate(() => document.documentElement.scrollWidth);
  assert.ok(wide <= 360, `${wide} pixels wide`);
  await page.close();
});
