// Pictures from wherever they come: chosen, dropped (folders too), pasted, photographed.

const LARGE = 1_500_000; // bytes from which on a picture is shrunk before it is sent
const SIDE = 1600;
const THUMBNAIL = 320;
const NAMES = /\.(jpe?g|jfif|png|webp|bmp|gif|tiff?|ppm|pgm|avif|heic|heif)$/i;

const isPicture = (file) => file.type.startsWith("image/") || NAMES.test(file.name);

/** The name of the folder that a file lies in; empty for none. */
function folderOf(path) {
  const parts = path.split("/").filter(Boolean);
  return parts.length > 1 ? parts[parts.length - 2] : "";
}

/** Files that an input gave, each with its folder. */
export function chosen(files) {
  return [...files]
    .filter((file) => isPicture(file) && !file.name.startsWith("."))
    .map((file) => ({ file, folder: folderOf(file.webkitRelativePath) }));
}

/** Files that were dropped, those in folders included. */
export async function dropped(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return chosen(transfer.files);
  const found = [];
  for (const entry of entries) await walk(entry, found);
  return found;
}

async function walk(entry, found) {
  if (entry.name.startsWith(".")) return;
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    if (isPicture(file)) found.push({ file, folder: folderOf(entry.fullPath) });
    return;
  }
  const reader = entry.createReader();
  for (;;) {
    const part = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!part.length) return; // a reader gives some hundred at a time
    for (const one of part.sort((a, b) => a.name.localeCompare(b.name))) await walk(one, found);
  }
}

/** The file to send, and a small picture to show; null where the browser cannot read it. */
export async function prepared(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    return { file, thumbnail: null };
  }
  const { width, height } = bitmap;
  const side = Math.max(width, height);
  const small = await drawn(bitmap, THUMBNAIL / Math.min(width, height), 0.8);
  const sent = file.size > LARGE && side > SIDE ? await drawn(bitmap, SIDE / side, 0.92) : null;
  bitmap.close();
  return {
    file: sent ? new File([sent], file.name, { type: "image/jpeg" }) : file,
    thumbnail: URL.createObjectURL(small),
  };
}

function drawn(bitmap, scale, quality) {
  const shrunk = Math.min(1, scale);
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * shrunk));
  canvas.height = Math.max(1, Math.round(bitmap.height * shrunk));
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return new Promise((done) => canvas.toBlob(done, "image/jpeg", quality));
}

/** Let the camera take pictures, each handed to `take`. */
export async function openCamera(take, fallback) {
  if (!navigator.mediaDevices?.getUserMedia) return fallback();
  const dialog = document.getElementById("camera");
  const video = document.getElementById("video");
  const text = document.getElementById("camera-text");
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch {
    return fallback();
  }
  let count = 0;
  video.srcObject = stream;
  const shoot = () => {
    const canvas = document.createElement("canvas");
    canvas.width = video.videoWidth;
    canvas.height = video.videoHeight;
    canvas.getContext("2d").drawImage(video, 0, 0);
    canvas.toBlob((blob) => {
      count += 1;
      text.textContent = `${count} taken.`;
      take(new File([blob], `camera ${new Date().toISOString().slice(11, 19)}.jpg`, { type: "image/jpeg" }));
    }, "image/jpeg", 0.92);
  };
  document.getElementById("camera-take").onclick = shoot;
  document.getElementById("camera-close").onclick = () => dialog.close();
  dialog.onclose = () => stream.getTracks().forEach((track) => track.stop());
  dialog.showModal();
}
