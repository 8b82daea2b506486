#!/usr/bin/env node
// Opens studies in OHIF (one headless Chromium), shows their AI results as a radiologist would, takes PNGs, and reads
// from the page what it drew, where. Called by ohif.py: for each line of JSON on stdin one line of JSON on stdout.
// SR and SEG are opened by OHIF's own "Yes"; if no button shows up, the command behind it is run (`pressed` says which).
import { createRequire } from 'node:module';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import readline from 'node:readline';
import { parseArgs } from 'node:util';

const { values: args } = parseArgs({ options: {
  tools: { type: 'string' }, chromium: { type: 'string', default: '/usr/bin/chromium' },
  width: { type: 'string', default: '1600' }, height: { type: 'string', default: '1000' },
} });
const { chromium } = createRequire(path.join(path.resolve(args.tools), 'x.js'))('playwright-core');
const SECONDARY_CAPTURE = '1.2.840.10008.5.1.4.1.1.7', PARAMETRIC_MAP = '1.2.840.10008.5.1.4.1.1.30';
const sleep = ms => new Promise(resolve => setTimeout(resolve, ms));
const until = async (asked, ms, step = 150) => {
  for (const end = Date.now() + ms; Date.now() < end; await sleep(step)) if (await asked().catch(() => false)) return true;
  return false;
};

// ---- in the page

/** What the tests call, as `window.looking`. */
function installed() {
  const services = () => window.services, core = () => window.cornerstone;
  const active = () => services().viewportGridService.getActiveViewportId();
  const viewport = () => services().cornerstoneViewportService.getCornerstoneViewport(active());
  const of = imageId => { // which instance and frame an image is
    const found = /\/instances\/([\d.]+)\/frames\/(\d+)/.exec(imageId || '');
    return found ? { image: found[1], frame: Number(found[2]) } : { image: '', frame: 0 };
  };
  const code = c => c && `${c.CodingSchemeDesignator || ''}:${c.CodeValue || ''}:${c.CodeMeaning || c.text || ''}`;
  // Not cornerstone's own imageToWorldCoords and back: 5.6.8 takes the spacings of rows and columns for one another
  const plane = imageId => {
    const p = core().metaData.get('imagePlaneModule', imageId);
    return { at: Array.from(p.imagePositionPatient), across: Array.from(p.rowCosines), down: Array.from(p.columnCosines),
      mm: [p.columnPixelSpacing || 1, p.rowPixelSpacing || 1] };
  };
  const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
  const toImage = (imageId, world) => {
    const p = plane(imageId), from = [0, 1, 2].map(k => world[k] - p.at[k]);
    return [dot(from, p.across) / p.mm[0] + 0.5, dot(from, p.down) / p.mm[1] + 0.5];
  };
  const toWorld = (imageId, [x, y]) => {
    const p = plane(imageId);
    return [0, 1, 2].map(k => p.at[k] + (x - 0.5) * p.mm[0] * p.across[k] + (y - 0.5) * p.mm[1] * p.down[k]);
  };
  const toScreen = canvas => {
    const at = viewport().canvas.getBoundingClientRect();
    return [at.x + canvas[0], at.y + canvas[1]];
  };
  return {
    active,
    displaySets: () => services().displaySetService.activeDisplaySets.map(d => ({
      uid: d.displaySetInstanceUID, modality: d.Modality, description: d.SeriesDescription, number: d.SeriesNumber,
      sopClass: d.SOPClassUID || d.instance?.SOPClassUID || d.instances?.[0]?.SOPClassUID || d.images?.[0]?.SOPClassUID,
      images: d.numImageFrames, unsupported: !!d.unsupported })),
    rendered: () => core()?.getEnabledElements?.().some(e => e.viewport.viewportStatus === 'rendered'),
    show: uid => { // what a double click on the thumbnail does
      let changes;
      try { changes = services().hangingProtocolService.getViewportsRequireUpdate(active(), uid, true); }
      catch { changes = [{ viewportId: active(), displaySetInstanceUIDs: [uid] }]; }
      window.commandsManager.run('setDisplaySetsForViewports', { viewportsToUpdate: changes });
    },
    isShown: uid => (services().viewportGridService.getState().viewports.get(active())?.displaySetInstanceUIDs || []).includes(uid),
    isLoaded: uid => { const d = services().displaySetService.getDisplaySetByUID(uid); return !d.isDerivedDisplaySet || d.isLoaded; },
    counts: () => [services().measurementService.getMeasurements().length, services().segmentationService.getSegmentations().length],
    hydrate: uid => window.commandsManager.run('hydrateSecondaryDisplaySet', {
      displaySet: services().displaySetService.getDisplaySetByUID(uid), viewportId: active() }),
    panel: name => {
      const panels = services().panelService;
      const found = panels.getPanels('right').map(p => p.id || p).find(id => new RegExp(name, 'i').test(id));
      if (found) panels.activatePanel(found, true);
    },
    jump: label => { // to the first whose label holds the text, else to the first
      const all = services().measurementService.getMeasurements();
      const found = all.find(m => label && (m.label || '').includes(label)) || all[0];
      if (found) services().measurementService.jumpToMeasurement(active(), found.uid);
    },
    jumpToSegment: label => {
      const all = services().segmentationService.getSegmentations().flatMap(s =>
        Object.values(s.segments || {}).filter(Boolean).map(x => [s.segmentationId, x.segmentIndex, x.label]));
      const found = all.find(x => label && (x[2] || '').includes(label)) || all[0];
      if (found) services().segmentationService.jumpToSegmentCenter(found[0], found[1], active());
    },
    /** Scrolls to the first of some instances that the viewport holds; a volume counts its slices from the other end. */
    scroll: async uids => {
      const shown = viewport(), ids = shown.getImageIds();
      const index = ids.findIndex(id => uids.includes(of(id).image));
      for (const imageIndex of index < 0 ? [] : [index, ids.length - 1 - index]) {
        await core().utilities.jumpToSlice(shown.element, { imageIndex });
        await new Promise(resolve => setTimeout(resolve, 500));
        if (uids.includes(of(shown.getCurrentImageId()).image)) return;
      }
    },
    /** Which image the viewport shows, and the affine map from image coordinates to pixels of the page. */
    view: () => {
      const shown = viewport();
      const imageId = shown?.getCurrentImageId?.();
      if (!imageId || !of(imageId).image) return null;
      const at = (x, y) => toScreen(shown.worldToCanvas(toWorld(imageId, [x, y])));
      const [origin, right, below] = [at(0, 0), at(100, 0), at(0, 100)];
      return { ...of(imageId), kind: shown.type, origin, across: right.map((v, k) => (v - origin[k]) / 100),
        down: below.map((v, k) => (v - origin[k]) / 100) };
    },
    measurements: () => services().measurementService.getMeasurements().map(m => ({
      uid: m.uid, tool: m.toolName || m.type, label: m.label, finding: code(m.finding), sites: (m.findingSites || []).map(code),
      ...of(m.referencedImageId), frameNumber: m.frameNumber, text: m.displayText, visible: m.isVisible,
      world: (m.points || []).map(p => Array.from(p)), // what is in space names no image
      corners: m.referencedImageId ? (m.points || []).map(p => toImage(m.referencedImageId, p)) : [] })),
    /** The rectangles and lines that stand in the page's drawing, back in coordinates of the image under them. */
    drawn: () => {
      const shown = viewport(), imageId = shown?.getCurrentImageId?.();
      if (!imageId) return {};
      const back = (x, y) => toImage(imageId, shown.canvasToWorld([x, y]));
      const found = {}, number = (e, name) => Number(e.getAttribute(name));
      for (const e of document.querySelectorAll('svg.svg-layer rect[data-id]')) {
        const [x, y, w, h] = ['x', 'y', 'width', 'height'].map(n => number(e, n));
        found[e.getAttribute('data-id').replace(/-rect.*$/, '')] = [back(x, y), back(x + w, y), back(x, y + h), back(x + w, y + h)];
      }
      for (const e of document.querySelectorAll('svg.svg-layer line[data-id]'))
        found[e.getAttribute('data-id').replace(/-line.*$/, '')] = [back(number(e, 'x1'), number(e, 'y1')), back(number(e, 'x2'), number(e, 'y2'))];
      return found;
    },
    /** Segments with their pixels as runs (start, length, ...) in each image that has any. */
    segmentations: () => services().segmentationService.getSegmentations().map(s => {
      const segments = Object.values(s.segments || {}).filter(x => x && x.segmentIndex > 0);
      const labelmap = s.representationData?.Labelmap || {};
      const maps = labelmap.labelmaps ? Object.entries(labelmap.labelmaps).map(([id, m]) => [id, m.imageIds || []]) : [];
      const ids = [...new Set([...(labelmap.imageIds || []), ...maps.flatMap(m => m[1])])];
      const bound = Object.entries(labelmap.segmentBindings || {}).map(([k, b]) => [Number(k), b]);
      const named = (id, value) => { // overlapping segments lie in labelmaps of their own, with values of their own
        const home = maps.find(m => m[1].includes(id))?.[0];
        return bound.find(([, b]) => b.labelmapId === home && b.labelValue === value)?.[0] ?? value;
      };
      const runs = {};
      for (const id of ids) {
        const image = core().cache.getImage(id);
        const pixels = image?.voxelManager?.getScalarData?.();
        if (!pixels) continue;
        const where = of(image.referencedImageId), key = `${where.image}/${where.frame}`;
        for (let k = 0; k < pixels.length;) {
          let end = k + 1;
          while (end < pixels.length && pixels[end] === pixels[k] && end % image.width) end++;
          if (pixels[k]) (((runs[named(id, pixels[k])] ??= {})[key] ??= [])).push(k, end - k);
          k = end;
        }
      }
      const colour = x => { try { return Array.from(services().segmentationService.getSegmentColor(active(), s.segmentationId, x.segmentIndex)); } catch { return null; } };
      return { label: s.label, representations: Object.keys(s.representationData || {}), segments: segments.map(x => ({
        index: x.segmentIndex, label: x.label, colour: colour(x), runs: runs[x.segmentIndex] || {},
        volume: x.cachedStats?.namedStats?.volume?.value ?? null })) };
    }),
    rows: () => [...document.querySelectorAll('[data-cy="data-row"]')].map(e => e.innerText.replace(/\s+/g, ' ').trim()),
  };
}

// ---- around the page

async function press(page, ms) { // OHIF's own button, else nothing
  const button = page.locator('button:has-text("Yes"), [data-cy="yes-hydrate-btn"]').first();
  try {
    await button.waitFor({ timeout: ms });
    await button.evaluate(e => e.click()); // the mouse waits for a still page, and may click although it gave up: then all is there twice
    return 'Yes';
  } catch { return null; }
}

const kind = (d, want) => want === 'PM' ? d.sopClass === PARAMETRIC_MAP : want === 'OT' ? d.modality === 'OT' && d.sopClass !== PARAMETRIC_MAP
  : d.modality === want && ![PARAMETRIC_MAP, SECONDARY_CAPTURE].includes(d.sopClass);

async function look(context, o) {
  const seen = { display_sets: [], shots: [], measurements: [], segmentations: [], panel: [], warnings: [], errors: [], missing: [], blocked_requests: [] };
  const ms = o.timeout * 1000, origin = new URL(o.base).origin;
  const page = await context.newPage();
  const shot = async (name, more = {}) => {
    await sleep(500);
    const file = `${o.out}-${seen.shots.length}-${name}.png`;
    const view = await page.evaluate(() => window.looking.view()).catch(() => null);
    await page.screenshot({ path: file });
    seen.shots.push({ name, file, view, ...more });
  };
  try {
    await page.addInitScript(`window.looking = (${installed})();
      try { localStorage.setItem('shownTours', '["basicViewerTour", "basicTour", "segmentationTour"]'); } catch {}`); // no tour over the pictures
    await page.route('**/*', route => {
      const url = route.request().url();
      if (url.startsWith(origin) || url.startsWith('blob:') || url.startsWith('data:')) return route.continue();
      seen.blocked_requests.push(url);
      return route.abort();
    });
    page.on('pageerror', e => seen.errors.push(`pageerror: ${String(e).slice(0, 300)}`));
    page.on('console', m => {
      const text = m.text();
      if (/Unable to generate tool state|not rehydratable|No measurements found|OBLIQUE|Unsupported|failed to load|not currently supported/i.test(text)) seen.warnings.push(text.slice(0, 300));
      else if (m.type() === 'error' || /(Type|Reference|Range)Error/.test(text)) seen.errors.push(text.slice(0, 400));
    });
    await page.goto(`${o.base}/viewer?StudyInstanceUIDs=${o.study}`, { waitUntil: 'domcontentloaded', timeout: ms });
    await page.waitForFunction(() => window.services?.displaySetService?.activeDisplaySets?.length > 0, null, { timeout: ms });
    await page.waitForFunction(() => window.looking.rendered(), null, { timeout: ms });
    let last = -1;
    await until(async () => { const n = (await page.evaluate(() => window.looking.displaySets())).length; const same = n === last; last = n; return same; }, 20000, 1000);
    seen.display_sets = await page.evaluate(() => window.looking.displaySets());
    await shot('open');
    for (const want of o.show) {
      const targets = seen.display_sets.filter(d => kind(d, want) && !d.unsupported);
      if (!targets.length) seen.missing.push(`no (supported) series of ${want}`);
      for (const target of targets) await show(page, target, want, o, seen, shot);
    }
    seen.measurements = await page.evaluate(() => window.looking.measurements());
    seen.segmentations = await page.evaluate(() => window.looking.segmentations());
  } catch (e) {
    seen.missing.push(`the viewer: ${String(e).slice(0, 500)}`);
    await shot('failed').catch(() => {});
  } finally { await page.close(); }
  return seen;
}

async function show(page, target, want, o, seen, shot) {
  const before = await page.evaluate(() => window.looking.counts());
  const known = seen.errors.length;
  await page.evaluate(uid => window.looking.show(uid), target.uid);
  await until(() => page.evaluate(uid => window.looking.isLoaded(uid), target.uid), 15000);
  if (want === 'SR' || want === 'SEG') {
    if (o.previews) { await sleep(2000); await shot(`${want}-preview`); }
    let pressed = await press(page, 20000);
    if (!pressed) {
      pressed = 'command hydrateSecondaryDisplaySet';
      await page.evaluate(uid => window.looking.hydrate(uid), target.uid).catch(e => seen.errors.push(String(e).slice(0, 300)));
    }
    const n = want === 'SR' ? 0 : 1;
    await until(() => page.evaluate(([n, before]) => window.looking.counts()[n] > before[n], [n, before]), 12000);
    await sleep(1500);
    await page.evaluate(name => window.looking.panel(name), want === 'SR' ? 'measurement' : 'segmentation').catch(() => {});
    await page.evaluate(([sr, label]) => sr ? window.looking.jump(label) : window.looking.jumpToSegment(label), [want === 'SR', o.jump]).catch(e => seen.warnings.push(`jump: ${String(e).slice(0, 160)}`));
    await sleep(2000);
    await shot(want, { pressed, drawn: want === 'SR' ? await page.evaluate(() => window.looking.drawn()) : {} });
    if (want === 'SR') seen.panel.push(...await page.evaluate(() => window.looking.rows()));
  } else {
    await until(() => page.evaluate(uid => window.looking.isShown(uid), target.uid), 10000);
    await until(() => page.evaluate(() => window.looking.rendered()), 10000);
    await sleep(1500);
    await page.evaluate(uids => window.looking.scroll(uids), o.at).catch(e => seen.warnings.push(`scroll: ${String(e).slice(0, 160)}`));
    await sleep(1500);
    await shot(want);
  }
  if (seen.errors.slice(known).some(e => /Error Boundary|Something went wrong/.test(e))) seen.missing.push(`the viewer crashed on ${want}`);
}

const profile = fs.mkdtempSync(path.join(os.tmpdir(), 'ohif-'));
const context = await chromium.launchPersistentContext(profile, {
  executablePath: args.chromium, headless: true, viewport: { width: Number(args.width), height: Number(args.height) },
  args: ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync', '--disable-dev-shm-usage',
    '--use-gl=angle', '--use-angle=swiftshader', '--enable-unsafe-swiftshader', '--ignore-gpu-blocklist', // WebGL without a GPU
    '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1'], // loopback only
});
try {
  for await (const line of readline.createInterface({ input: process.stdin })) console.log(JSON.stringify(await look(context, JSON.parse(line))));
} finally {
  await context.close().catch(() => {});
  fs.rmSync(profile, { recursive: true, force: true });
}
