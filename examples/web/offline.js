/** Registers the service worker, which keeps the app for use offline and allows threads. */

const RELOADED = "musical-reloaded";

if ("serviceWorker" in navigator) {
  await navigator.serviceWorker.register(new URL("../service_worker.js", import.meta.url));
  await navigator.serviceWorker.ready;
  // Only a page that came through the service worker may use threads.
  const isUnused = document.body.dataset.mode === "start" && !sessionStorage.getItem(RELOADED);
  if (!crossOriginIsolated && isUnused) {
    sessionStorage.setItem(RELOADED, "yes");
    location.reload();
  }
}
