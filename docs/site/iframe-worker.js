// Search in pages that are opened from a file: browsers refuse workers there, so an iframe stands in for one.
// The theme's own stand-in would be fetched from another host; this one does the same with what the search needs.
if (location.protocol === "file:") {
  // The theme's search asks for the second name to learn that it runs in an iframe.
  window.Worker = window.IFrameWorker = class extends EventTarget {
    constructor(url) {
      super();
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.append(this.frame);
      const inside = this.frame.contentWindow;
      const page = inside.document;
      page.open();
      page.write("<!doctype html><body></body>");
      page.close();
      inside.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data: structuredClone(data) }));
      inside.importScripts = (...urls) => urls.reduce((last, one) => last.then(() => load(page, one)), Promise.resolve());
      this.loaded = load(page, url);
    }

    postMessage(data) {
      const inside = this.frame.contentWindow;
      this.loaded.then(() => inside.dispatchEvent(new MessageEvent("message", { data: structuredClone(data) })));
    }

    terminate() {
      this.frame.remove();
    }
  };

  function load(page, url) {
    return new Promise((done, failed) => {
      const script = page.createElement("script");
      script.onload = done;
      script.onerror = failed;
      script.src = url;
      page.body.append(script);
    });
  }
}
