// Keeps the whole app in the browser, so that it works offline. build.py adds the list of files.

function serve(version, files) {
  const prefix = `musical ${registration.scope} `; // other apps of the site have caches too
  const name = prefix + version;

  addEventListener("install", (event) => event.waitUntil(keep()));
  addEventListener("activate", (event) => event.waitUntil(takeOver()));
  addEventListener("fetch", (event) => {
    const { method, url } = event.request;
    if (method === "GET" && url.startsWith(registration.scope)) event.respondWith(answer(event));
  });

  async function keep() {
    const cache = await caches.open(name);
    await cache.addAll(files.map((file) => new Request(file, { cache: "reload" })));
    await skipWaiting();
  }

  async function takeOver() {
    const old = (await caches.keys()).filter((one) => one.startsWith(prefix) && one !== name);
    await Promise.all(old.map((one) => caches.delete(one)));
    await clients.claim();
  }

  async function answer({ request }) {
    const cache = await caches.open(name);
    const kept = (await cache.match(request, { ignoreSearch: true })) ?? (await fetch(request));
    // Browsers allow threads only on pages that are isolated from other sites.
    const headers = new Headers(kept.headers);
    headers.set("Cross-Origin-Opener-Policy", "same-origin");
    headers.set("Cross-Origin-Embedder-Policy", "require-corp");
    return new Response(kept.body, { status: kept.status, statusText: kept.statusText, headers });
  }
}
