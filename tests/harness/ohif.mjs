#!/usr/bin/env node
// Opens one study in OHIF (headless Chromium), shows its AI results as a radiologist would, takes PNGs, prints JSON.
// SR: opened (dashed preview), then hydrated by pressing OHIF's own "Yes"; SEG: its own "Yes"; if no button shows up,
// the command behind it is run instead (`pressed` says which). Exit 0: everything asked for was seen; 1: something is
// missing or OHIF crashed; 2: the page did not load. Called by ohif.py.
import { createRequire } from 'node:module';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';

const { values: a } = parseArgs({ options: {
  base: { type: 'string', default: 'http://127.0.0.1:8144' }, study: { type: 'string' },
  out: { type: 'string', default: 'shot' }, mode: { type: 'string', default: 'viewer' },
  show: { type: 'string', default: 'OT,SEG,SR' }, timeout: { type: 'string', default: '90' },
  'min-measurements': { type: 'string', default: '0' }, 'min-segments': { type: 'string', default: '0' },
  tools: { type: 'string' },
  width: { type: 'string', default: '1600' }, height: { type: 'string', default: '1000' },
  chromium: { type: 'string', default: process.env.CHROMIUM || '/usr/bin/chromium' },
} });
const { chromium } = createRequire(path.join(path.resolve(a.tools), 'x.js'))('playwright-core');
const T = Number(a.timeout) * 1000;
const R = { ok: false, study: a.study, displaySets: [], shots: [], measurements: [], segmentations: [], panel: [],
  annotationsDrawn: 0, warnings: [], errors: [], missing: [], blockedRequests: [] };
const profile = fs.mkdtempSync(path.join(os.tmpdir(), 'ohif-shot-'));
fs.mkdirSync(path.dirname(path.resolve(a.out)), { recursive: true });
const sleep = ms => new Promise(r => setTimeout(r, ms));
const until = async (f, ms, step = 300) => { const end = Date.now() + ms; while (Date.now() < end) { if (await f()) return true; await sleep(step); } return false; };
let ctx, page, code = 0;

async function shot(name) {
  const f = `${a.out}-${name}.png`;
  await sleep(800);
  await page.screenshot({ path: f });
  R.shots.push(f);
}
const panelOpen = async id => {       // right hand panel: measurements or segmentations
  await page.evaluate(id => { const S = window.services.panelService; const p = S.getPanels("right").map(x => x.id || x).find(x => new RegExp(id, "i").test(x)); if (p) S.activatePanel(p, true); }, /track/.test(id) ? "easurement" : "egmentation").catch(() => {});
  await sleep(900);
  if (await page.evaluate(() => (document.querySelector("#viewerLayoutResizableRightPanel")?.getBoundingClientRect().width || 0) > 120)) return;
  const b = page.locator(`#${id}`).first();
  if (await b.count() && await b.isVisible()) { await b.click({ timeout: 5000 }).catch(() => {}); await sleep(900); }
};
async function press() {              // OHIF's own button, else nothing
  for (const sel of ['button:has-text("Yes")', '[data-cy="yes-hydrate-btn"]']) {
    const b = page.locator(sel).first();
    if (await b.count() && await b.isVisible()) {
      // the mouse waits for a still page, and its click may come through although it gave up: then all is there twice
      try { await b.evaluate(e => e.click()); return sel; } catch (e) { R.warnings.push(`${sel}: ${String(e).slice(0, 120)}`); }
    }
  }
  return null;
}

try {
  ctx = await chromium.launchPersistentContext(profile, {
    executablePath: a.chromium, headless: true, viewport: { width: Number(a.width), height: Number(a.height) },
    args: ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
      '--disable-component-update', '--disable-sync', '--disable-dev-shm-usage',
      '--use-gl=angle', '--use-angle=swiftshader', '--enable-unsafe-swiftshader', '--ignore-gpu-blocklist',   // WebGL without a GPU
      '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1'],                                            // loopback only
  });
  page = ctx.pages()[0] || await ctx.newPage();
  const origin = new URL(a.base).origin;
  await page.addInitScript(() => { try {      // no guided tour over the pictures
    localStorage.setItem('shownTours', JSON.stringify(['basicViewerTour', 'basicTour', 'segmentationTour']));
  } catch { /* about:blank */ } });
  await page.route('**/*', r => {
    const u = r.request().url();
    if (u.startsWith(origin) || u.startsWith('blob:') || u.startsWith('data:')) return r.continue();
    R.blockedRequests.push(u); return r.abort();
  });
  page.on('console', m => {
    const t = m.text();
    if (/Unable to generate tool state|not rehydratable|No measurements found|OBLIQUE|Unsupported|failed to load|not currently supported/i.test(t)) R.warnings.push(t.slice(0, 300));
    else if (m.type() === 'error' || /(Type|Reference|Range)Error/.test(t)) R.errors.push(t.slice(0, 400));
  });
  page.on('pageerror', e => R.errors.push('pageerror: ' + String(e).slice(0, 300)));

  await page.goto(`${a.base}/${a.mode}?StudyInstanceUIDs=${a.study}`, { waitUntil: 'domcontentloaded', timeout: T });
  await page.waitForFunction(() => window.services?.displaySetService?.activeDisplaySets?.length > 0, null, { timeout: T });
  let last = -1;
  await until(async () => { const n = await page.evaluate(() => window.services.displaySetService.activeDisplaySets.length); const same = n === last; last = n; return same; }, 20000, 1500);
  await page.waitForSelector('.cornerstone-canvas', { timeout: T });
  await until(() => page.evaluate(() => [...document.querySelectorAll('.cornerstone-canvas')].some(c => c.width > 10)), 15000);
  await sleep(2500);

  R.displaySets = await page.evaluate(() => window.services.displaySetService.activeDisplaySets.map(d => ({
    uid: d.displaySetInstanceUID, Modality: d.Modality, SeriesDescription: d.SeriesDescription, SeriesNumber: d.SeriesNumber,
    images: d.numImageFrames, unsupported: !!d.unsupported, derived: !!d.isDerivedDisplaySet, handler: d.SOPClassHandlerId?.split('.').pop() })));
  await shot('0-open');

  const want = a.show.split(',').map(s => s.trim()).filter(Boolean);
  const targets = want.flatMap(m => R.displaySets.filter(d => d.Modality === m && !d.unsupported));
  for (const m of want) if (!targets.some(d => d.Modality === m)) R.missing.push(`no (supported) series of modality ${m}`);
  let k = 1;
  for (const d of targets) {
    const tag = `${k++}-${d.Modality}-${d.SeriesNumber}`;
    const nErr = R.errors.length;
    try {
      await page.evaluate(async uid => {          // what a double click on the thumbnail does
        const vp = window.services.viewportGridService.getActiveViewportId();
        let upd;
        try { upd = window.services.hangingProtocolService.getViewportsRequireUpdate(vp, uid, true); } catch { upd = [{ viewportId: vp, displaySetInstanceUIDs: [uid] }]; }
        window.commandsManager.run('setDisplaySetsForViewports', { viewportsToUpdate: upd });
      }, d.uid);
      await until(() => page.evaluate(uid => { const s = window.services.displaySetService.getDisplaySetByUID(uid); return !s.isDerivedDisplaySet || s.isLoaded; }, d.uid), 12000);
      await sleep(3000);
      await shot(`${tag}-shown`);
      if (!['SR', 'SEG', 'RTSTRUCT'].includes(d.Modality)) continue;
      d.state = await page.evaluate(uid => {
        const ds = window.services.displaySetService.getDisplaySetByUID(uid);
        return { isLoaded: ds.isLoaded, isRehydratable: ds.isRehydratable,
          measurements: (ds.measurements || []).map(m => m && ({ TrackingIdentifier: m.TrackingIdentifier, loaded: m.loaded, graphicType: m.graphicType || m.coords?.[0]?.GraphicType, labels: (m.labels || []).map(l => `${l.label}: ${l.value}`) })) };
      }, d.uid);
      const n0 = await page.evaluate(() => [window.services.measurementService.getMeasurements().length, window.services.segmentationService.getSegmentations().length]);
      d.pressed = await press();
      if (!d.pressed) {
        d.pressed = 'command hydrateSecondaryDisplaySet';
        await page.evaluate(async uid => {
          const ds = window.services.displaySetService.getDisplaySetByUID(uid);
          await window.commandsManager.run('hydrateSecondaryDisplaySet', { displaySet: ds, viewportId: window.services.viewportGridService.getActiveViewportId() });
        }, d.uid);
      }
      await until(() => page.evaluate(([sr, n]) => (sr ? window.services.measurementService.getMeasurements().length > n[0] : window.services.segmentationService.getSegmentations().length >= Math.max(1, n[1])), [d.Modality === 'SR', n0]), 10000);
      await sleep(2500);
      await panelOpen(d.Modality === 'SR' ? 'trackedMeasurements-btn' : 'panelSegmentation-btn');
      const stops = await page.evaluate(sr => {
        const S = window.services;
        return sr ? S.measurementService.getMeasurements().map(m => m.uid)
          : S.segmentationService.getSegmentations().flatMap(s => Object.values(s.segments || {}).filter(x => x && x.segmentIndex > 0).map(x => [s.segmentationId, x.segmentIndex]));
      }, d.Modality === 'SR');
      if (!stops.length) { await shot(`${tag}-hydrated`); continue; }
      for (const s of stops.slice(0, 1)) {
        await page.evaluate(([sr, s]) => {
          const S = window.services, vp = S.viewportGridService.getActiveViewportId();
          if (sr) S.measurementService.jumpToMeasurement(vp, s); else S.segmentationService.jumpToSegmentCenter(s[0], s[1], vp);
        }, [d.Modality === 'SR', s]).catch(e => R.warnings.push('jump: ' + String(e).slice(0, 160)));
        await sleep(2000);
        await shot(`${tag}-hydrated`);
      }
      if (d.Modality === 'SR') R.panel.push(...await page.evaluate(() => [...document.querySelectorAll('[data-cy="data-row"]')].map(e => e.innerText.replace(/\s+/g, ' ').trim())));
      else R.panel.push(...await page.evaluate(() => [...document.querySelectorAll('#viewerLayoutResizableRightPanel')].map(e => e.innerText.replace(/\s+/g, ' ').trim().slice(0, 400))));
    } catch (e) { R.errors.push(`${tag}: ${String(e).slice(0, 300)}`); code = 1; }
    if (R.errors.slice(nErr).some(e => /Error Boundary|Something went wrong/.test(e))) { R.missing.push(`OHIF crashed on ${d.Modality} ${d.SeriesDescription}`); await shot(`${tag}-crash`); }
  }
  Object.assign(R, await page.evaluate(() => {
    const S = window.services;
    const c = x => x && `${x.CodingSchemeDesignator || ''}:${x.CodeValue || ''}:${x.CodeMeaning || x.text || ''}`;
    return {
      measurements: S.measurementService.getMeasurements().map(m => ({ tool: m.toolName || m.type, label: m.label, finding: c(m.finding),
        sites: (m.findingSites || []).map(c), SOPInstanceUID: m.SOPInstanceUID, frame: m.frameNumber, text: m.displayText, visible: m.isVisible })),
      segmentations: S.segmentationService.getSegmentations().map(s => ({ label: s.label, representations: Object.keys(s.representationData || {}),
        segments: Object.values(s.segments || {}).filter(Boolean).map(x => ({ index: x.segmentIndex, label: x.label })) })),
      annotationsDrawn: document.querySelectorAll('svg.svg-layer path, svg.svg-layer line, svg.svg-layer rect, svg.svg-layer ellipse, svg.svg-layer polyline, svg.svg-layer circle').length,
    };
  }));
  const nseg = R.segmentations.reduce((n, s) => n + s.segments.filter(x => x.index > 0).length, 0);
  if (R.measurements.length < Number(a['min-measurements'])) R.missing.push(`measurements ${R.measurements.length} < ${a['min-measurements']}`);
  if (nseg < Number(a['min-segments'])) R.missing.push(`segments ${nseg} < ${a['min-segments']}`);
  if (R.missing.length) code = 1;
} catch (e) {
  R.errors.push('fatal: ' + String(e).slice(0, 500)); code = 2;
  try { await shot('fatal'); } catch { /* nothing to show */ }
} finally {
  try { await ctx?.close(); } catch { /* gone */ }
  fs.rmSync(profile, { recursive: true, force: true });
}
R.ok = code === 0;
console.log(JSON.stringify(R, null, 1));
process.exit(code);
