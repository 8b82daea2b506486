"""Generate medgem_node/deid/vocabulary.txt: the words that may stay in a cleaned description.

    python scripts/generate_vocabulary.py medgem_node/deid/vocabulary.txt SURNAMES GIVEN_NAMES...

The words are those of the code meanings and the data dictionary that pydicom carries, and of protocols in four
languages (below). Eponyms go: a word that pydicom writes with a capital only and that is somebody's name is none,
unless it stands in MEANT. Each list of names has one name a line, in its first column; the file in this repository was
made on 2026-11-23 with pydicom 3.0.2 and the names of the United States census of 1990 as in the package names 0.3.0
(dist.all.last, dist.male.first, dist.female.first).
"""

from __future__ import annotations

import argparse
import re
import unicodedata
from pathlib import Path

from pydicom._dicom_dict import DicomDictionary
from pydicom.sr._concepts_dict import concepts

OTHER_SCHEMES = {"MDC", "UCUM"}  # of devices and units: no words
WORD = re.compile(r"[^\W\d_]{2,}")
EPONYM = re.compile(r"([A-Z][a-z]+)(?:['\u2019]s\b|,? et al|-[A-Z][a-z]+ (?:syndrome|disease|sign|method|score))")

MEANT = frozenset(
    """
    alter american anal apple art aspect bad band base beam bear beard beer best bi bias bird blank bloom board bold
    bottom bound box branch brand breech bridge broad burden burning cam cap cape capsule card case cast cat cc check
    cloud coast coil coin color comment conception contrast cooper copper copy corn cornea corner corona corpus costa
    cough counts cover crown curl curly cut cutting cyst dates delay delta dermis dest distance doctor door dorso
    dot double drain drive drop dry dura early east eastern echo end english even exam face fan far fat fe fetal field
    file filler film fine fish flank flash flat flatness flow font force foramen fort forward french friend gain gate
    german glass gold golden good greek ground guard gutter hack hair hall hang head heading heads held hip hold holder
    hole hope ill imperial in index ion island italian joint jump keep key kidney kill king la label land landmark
    large late law leaf leak lens lights lim limb liner linear lip list lo lock long loop lot low mac major maker
    mandible manner map mark marking mask mass mean medi medial mem member members merge meta meter mid milk milling
    min minor mm moment most motion mount mouse mouth moving muscle na narrow nasal neck needs needle nerve never new
    nickel night normal north northern nose note numbers nova od off oh oil old open or oral orange order organ os out
    over ow oxford pa pack pad page pain pale pan panel parent part party pass paste patch path peak pee peel peeling
    peer pen people pepper per peri phase pi pin pine pipe pit pitch plain plane plant plate plaza point poll pond port
    portal post powder power present press price pro proper prostate pulse pump pupil push query rad radial radio radix
    ramp ramus range rapid rare rash rate ray reader real rear record records render rest rib ring rise rock role roll
    roof room root rotation round row royal safe sam sample sampling sand sar saw scale scan scar scatter score screen
    se sea search seat section segment self sella sense sensing septum serum server setting shape sharp shear shell
    shield shift short shot shoulder show shunt shutter side sign signal silver sin single site sites skin sleep slice
    slope slot slow small smooth soft solar sole south southern space spindle spine spiral spot spotted stable stack
    stamp standard star state states station status steady steel steep stem step still stock stone stop strain stream
    street stress strip stroke strong student style sub sum sun supine support sure surgeon suture swallow sweep swing
    syndrome table tag tail tape target taste temple terra test texture thick thigh thin threat through throat thumb
    tight tilt time times tip tissue toe tone tongue tooth top total touch towne trace track tract train trap tray
    tree trend trigger trim true trunk try tube tumor tune turn twin type ulna un unit upper upright ur us vein
    valley value valve var vas vent vertex vi view visual vita vivo voice void volume vomer wait wake wall waste watch
    water waters wave way weak wedge weight west western wet wheel wide width wild window wing wire woman women wood
    wooden word work worst wound wrap wrist yaw year yes young zone acetabular bilateral caudal cranial
    """.split()  # noqa: SIM905
)
"""Names of somebody, but medical or technical words first."""

NAMES = frozenset(
    """
    bauer bob bud celestine coon dane dell tien trotter victoria wright pei tan walker bessel fleischner fuchs hodgkin
    karan kai lan hai hong chang chan chow huang hoa thanh lee york yu xu xiang liang hsieh qin ding gao li wang zhang
    chen liu yang zhao wu zhou agatston haralick riva rocci swan ganz
    """.split()  # noqa: SIM905
)
"""Names of somebody first, though pydicom writes some of them in small letters too."""

PROTOCOL = """
    t1w t2w pdw swi swan flair mprage mp2rage bravo spgr vibe lava thrive dixon stir spair tirm haste blade propeller
    medic fiesta ciss space cube vista trufi truefisp fisp flash fse tse tfe ffe gre epi dwi dti adc dce dsc asl mra
    mrv mrcp tof pca pwi cest bold fmri svs csi cine lge perf diff trace ivim resolve nav navi mip minip mpr mpvr vrt
    thins thin thick recon rec ref nativ native plain kv kvp mas dlp ctdi ctdivol hu iv po mdk km kim ce cm gd gad
    gado gadovist omnipaque ultravist iopamidol iohexol iomeprol contrast contraste kontrast kontrastmittel contraste
    inyectado sans avec sin con ohne mit und nach vor wo pre post pc fs fat fatsat sat sup supp isotropic iso ax axi
    axial axiale tra trans transv transverse transversal transversale cor coro coronal koronal coronale sag sagittal
    sagital sagittale obl oblique schrag schraeg ap pa lat lateral seitlich profil perfil face frente dorsoplantar dv
    lao rao cran caud mlo ml cc lm iso fov rfov tr te ti fa nex nsa nr bw etl sl slc dist fak gap int slice schicht
    coupe corte scout topogram topo localizer localiser localizador locator loc surview survey scano scanogram planer
    helical spiral seq sequential step shoot axial dynamic dyn dynamisch bolus timing tracking monitor monitoring
    premonitoring smartprep care dose caredose arterial arteriell arterielle arterielle venous venos venoes portal
    portalvenous portalvenos veineux veineuse tardif tardive delayed late early spat frueh fruh phase art ven del exp
    insp inspi inspiration exspiration expiration atem atemstopp breath hold bh resp resptrig ekg ecg gated gating
    trigger trig head kopf schadel schaedel cct cerebral cerebrum gehirn hirn tete crane cabeza craneo cerebro cerveau
    neck hals cou cuello thorax torax chest lunge poumon pulmon hrct abdomen abdominal bauch ventre becken pelvis
    pelvien bassin spine wirbelsaule wirbelsaeule hws bws lws cwk bwk lwk rachis columna wirbel lumbal lumbar lumbaire
    lombaire thorakal cervical zervikal sacrum knie knee genou rodilla schulter shoulder epaule hombro hufte huefte hip
    hanche
    cadera fuss foot pied pie hand main mano ellbogen elbow coude codo handgelenk wrist poignet muneca sprunggelenk
    ankle cheville tobillo herz heart coeur corazon leber liver foie higado niere nieren kidney rein rinon milz
    pankreas prostata prostate mamma brust breast sein mama aorta carotis karotis gefasse gefaesse vessel vaisseaux
    run off runoff beine legs jambes piernas arme arms bras brazos obere untere extremitat extremitaet ganzkorper
    ganzkoerper wholebody wb rechts links droit droite gauche derecho derecha izquierdo izquierda right left re li rt
    lt bilateral bds beidseits kerne kern kernel filter weich hart soft bone lung knochen os hueso mediastinum weichteil
    weichteile tissue standard std detail edge sharp smooth sharpen ultra routine routin rutina low high res resolution
    hochauflosend iterative safire admire asir idose fbp dlir veo mar omar imar mono monoe mixed vnc perfusion ctp cta
    angio angiography angiographie angiografia dsa dyna cone beam cbct spect pet ac nac fdg wholebody attenuation
    corrected uncorrected static planar dose report protocol protokoll protocole protocolo exam series serie study
    studie etude estudio untersuchung befund follow fu control kontrolle controle verlauf trauma polytrauma stroke
    screening followup ct mr mri irm rmn mrt cr dx us nm xa mg px io rf sc ot sr ko pr seg rt cad key images screen
    save summary processed derived original reformat reformatted oblique curved mpr3d batch range volume vol stack
    tilt table bed supine prone rucklage bauchlage standing stehend liegend debout acostado portable bett mobile erect
    semi siemens healthineers philips ge medical systems toshiba canon hitachi fujifilm fuji agfa carestream kodak
    konica minolta hologic shimadzu samsung neusoft mindray esaote planmeca united imaging
    syngo somatom magnetom avanto aera skyra achieva ingenia lightspeed optima discovery revolution brilliance ingenuity
    aquilion acuson sectra logiq epiq isovue pilot projected gated lossless fil comp corporation echocardiogram
    quiet propeller asset grappa sense arc ipat caipi accel factor mocomed moco motion corr norm dis2d dis3d nd sub
    subtraction subtracted subtraktion phase magnitude mag real imag ph sw fl se ir ge tfl gr tir qsm swp mip map
    maps cbf cbv mtt ttp tmax rcbf rcbv rgb colfa fa tensor eadc calc bval hem nohem stroke lesion tumor tumour the
    and or of with without for to in on at by from per no not und der die das im von zur zum et le la les du des au aux
    el los las de del y para por
    """

LETTERS = {"ß": "ss", "ø": "o", "æ": "ae", "œ": "oe", "ł": "l"}


def generate(names: set[str]) -> str:
    """The vocabulary, one word a line, folded: small letters without accents."""
    meanings = [v[0] for s, of in concepts.items() if s not in OTHER_SCHEMES for codes in of.values()
                for v in codes.values()]  # fmt: skip
    texts = [*meanings, *(row[2] for row in DicomDictionary.values())]
    found = {word for text in texts for word in WORD.findall(text)}
    small = {word for word in found if word.islower()}
    eponyms = {folded(match[1]) for text in texts for match in EPONYM.finditer(text)}
    words = {folded(word) for word in small}
    words |= {w for word in found if (w := folded(word)) not in names | eponyms or w in MEANT}
    words = (words - NAMES) | {folded(word) for word in PROTOCOL.split()}
    return "\n".join(sorted(word for word in words if word.isascii() and word.isalnum())) + "\n"


def folded(word: str) -> str:
    """As medgem_node.deid.spelling does it."""
    word = "".join(LETTERS.get(c, c) for c in word.casefold())
    return "".join(c for c in unicodedata.normalize("NFKD", word) if not unicodedata.combining(c))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("vocabulary", type=Path)
    parser.add_argument("names", type=Path, nargs="+")
    arguments = parser.parse_args()
    names = {line.split()[0].lower() for path in arguments.names for line in path.read_text("utf-8").splitlines()}
    arguments.vocabulary.write_text(generate(names), encoding="utf-8")


if __name__ == "__main__":
    main()
