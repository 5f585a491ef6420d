"""The words of the pocket language, as tables: most frequent first, one line a kind.

A **kind** is what a noun's referent is (person, food, …); verbs and adjectives select kinds, which is all the meaning
there is. A word in two rows is a homograph: *crane* is an animal and a vehicle, *plant* two nouns and a verb.
"""

from __future__ import annotations

from typing import NamedTuple

#: kind → nouns.
NOUNS = {
    "person": """man woman child boy girl teacher doctor farmer friend student worker king queen cook nurse painter
        sailor soldier singer writer driver dancer coach judge hunter tailor poet pilot uncle aunt brother sister
        neighbour guest guide guard thief clown waiter captain ruler fan mole pitcher prince princess""",
    "animal": """dog cat horse bird cow pig lamb goat wolf fox bear lion tiger rabbit mouse bat duck hen frog snake
        turtle monkey crane elephant donkey eagle owl seal crow bee spider beetle whale kite shark swan mole camel bug
        jaguar""",
    "food": """apple cake egg pie soup sandwich potato onion carrot cookie pear lemon nut melon plum pancake sausage
        chip berry cherry tomato pepper bean noodle date muffin pickle turnip steak salad peach grape waffle
        dumpling""",
    "tool": """hammer knife rope axe brush saw bat broom spoon fork needle pen shovel mouse bucket ladder drill
        pencil lamp candle bottle basket net whistle nut drum ruler hook file wrench fan mop kite torch seal bulb
        pitcher match""",
    "vehicle": """car truck bus train boat ship bike cart coach van taxi plane wagon tractor crane canoe ferry tank
        sledge scooter rocket beetle jaguar trailer barge""",
    "cargo": """box chair table barrel sack crate bed log desk stove piano trunk sofa bench brick tank stone plank
        mirror carpet tile parcel bag suitcase""",
    "building": """house school church barn bank castle tower hotel shop plant hospital cottage palace temple factory
        museum library station prison cabin mill club garage theatre chapel pen bakery""",
    "place": """field river hill forest lake garden street valley square beach road park yard bank market village town
        city island cape mountain meadow desert harbour cave pond""",
    "plant": """tree flower rose bush plant oak pine tulip daisy vine fern lily palm willow cactus hedge weed bulb herb
        maple birch trunk""",
    "text": """book letter song story poem note novel report log speech joke message play essay file diary list guide
        recipe article hymn tale riddle match""",
    "cloth": """shirt coat hat dress sock shoe boot glove ring scarf jacket skirt cap belt apron robe sweater cape vest
        cloak veil gown mitten""",
    "force": "storm wind flood fire wave frost tornado blizzard hurricane avalanche gale tide",
    "idea": """plan idea question reason problem answer rule hope secret dream date wish promise theory bug lesson
        mistake habit""",
    "shape": """circle square triangle star ring cross heart arrow moon drop flower house fish mushroom key bolt tree
        crown hourglass cup""",
    "time": "morning evening day night week winter summer afternoon spring autumn",
    "group": "group pair row pile crowd collection bunch line",
}

#: Nouns whose pronoun is settled; other persons are *he* or *she* by a toss.
HE = frozenset(["man", "boy", "king", "uncle", "brother", "prince"])
SHE = frozenset(["woman", "girl", "queen", "aunt", "sister", "princess"])
NAMES = {"he": ["tom", "paul", "ben", "max", "leo", "sam"], "she": ["anna", "mary", "kate", "lucy", "rose", "emma"]}


class Frame(NamedTuple):
    """Verbs that share a subject and an object kind. An object of "" is none; a verb may bring its particle."""

    subject: str
    object: str
    verbs: str


#: frame → who does it to what. Each frame is one sense of its verbs.
FRAMES = {
    "cooking": Frame(
        "person", "food", "cook bake peel slice boil fry taste serve stir roast burn chop mash beat press"
    ),
    "feeding": Frame("animal", "food", "eat chew swallow lick sniff steal gobble nibble hide"),
    "hunting": Frame("animal", "animal", "chase bite catch follow hunt scare fight attack scratch corner"),
    "tending": Frame("person", "animal", "feed train pet tame ride groom milk rescue raise shear"),
    "growing": Frame("person", "plant", "plant water grow trim pick prune gather weed uproot"),
    "handling": Frame("person", "tool", "use hold sharpen borrow grip swing pick_up put_down throw_away polish break"),
    "driving": Frame("person", "vehicle", "drive park repair steer start board fix race catch slow_down"),
    "hauling": Frame("vehicle", "cargo", "carry haul deliver transport tow crush unload"),
    "drawing-along": Frame("animal", "vehicle", "pull draw drag tug"),
    "moving": Frame("person", "cargo", "lift move push pack stack weigh store set_down"),
    "reading": Frame("person", "text", "read write print open translate publish copy write_down recite quote record"),
    "wearing": Frame("person", "cloth", "wear sew iron fold knit mend dye put_on take_off press stitch"),
    "helping": Frame(
        "person",
        "person",
        "help thank meet visit call greet invite praise blame warn hug serve trust judge guide guard beat",
    ),
    "building": Frame("person", "building", "build enter clean leave own paint rent lock open raise inspect decorate"),
    "exploring": Frame("person", "place", "explore cross search visit map leave love"),
    "picturing": Frame("person", "shape", "draw paint trace colour copy sketch outline shade erase"),
    "striking": Frame("force", "building", "destroy damage shake flood topple ruin spare sweep_away tear_down"),
    "bending": Frame("force", "plant", "bend snap flatten scatter strip"),
    "pondering": Frame(
        "person",
        "idea",
        "explain discuss accept reject follow ignore forget remember consider question answer break attack share",
    ),
    "covering": Frame("shape", "shape", "touch cover hide cross overlap frame surround meet"),
    "minding": Frame("animal", "person", "obey guard greet trust follow wake_up defend scare"),
    "taking-along": Frame("vehicle", "person", "carry drop_off pick_up splash transport"),
    "moving-to-tears": Frame("text", "person", "amuse bore teach move impress praise mention"),
    "occurring": Frame("idea", "person", "worry confuse surprise please haunt strike"),
    "harming": Frame("force", "person", "frighten drown delay chill rescue"),
    "living": Frame(
        "person",
        "",
        "laugh smile sleep dance wait work sing cry run walk shout whisper whistle cough yawn joke pray stumble travel",
    ),
    "roaming": Frame("animal", "", "bark howl growl crawl run hop sleep graze hiss leap roar wander wake_up"),
    "rolling": Frame("vehicle", "", "stop crash turn arrive rattle depart skid sink run break_down"),
    "budding": Frame("plant", "", "bloom grow wilt sprout sway rot flower"),
    "blowing": Frame("force", "", "rage pass weaken return roar fade die_down"),
    "standing": Frame("building", "", "stand burn collapse gleam creak"),
    "spoiling": Frame("food", "", "burn rot melt spoil cool smell"),
    "rusting": Frame("tool", "", "rust break rattle shine vanish"),
    "falling": Frame("cargo", "", "fall tumble crack slide wobble"),
    "spreading": Frame("text", "", "circulate rhyme end vanish"),
    "wearing-out": Frame("cloth", "", "shrink fray tear fade flap"),
    "glowing": Frame("shape", "", "glow shine float spin blink grow shrink"),
    "counting": Frame("idea", "", "work fail spread matter succeed end"),
}

#: Verbs of persons that take more than a noun.
SAYING = "say think know believe hope claim fear report deny admit guess"
WANTING = "want try plan decide refuse promise learn need hope prepare"
GIVING = "give send show offer hand lend sell bring"
GIFTS = ("tool", "text", "food", "cloth")
SEEMING = "seem look become remain stay"

#: kind → adjectives that only it takes.
ADJECTIVES = {
    "person": "brave kind clever polite lazy proud shy gentle honest rude wise strict loyal nervous famous",
    "animal": "wild hungry furry fierce tame timid stray playful sleepy quiet",
    "food": "sweet fresh sour salty ripe bitter tasty spicy stale crisp juicy",
    "tool": "sharp useful handy blunt cheap broken rusty",
    "vehicle": "fast slow noisy modern empty crowded reliable",
    "cargo": "heavy wooden solid dusty bulky fragile",
    "building": "tall ancient grand ruined stately abandoned public",
    "place": "wide distant muddy peaceful deserted steep foggy",
    "plant": "green leafy thorny bare wild tall withered",
    "text": "boring funny famous clever brief secret dull",
    "cloth": "warm soft silk woollen elegant torn loose tight",
    "force": "violent sudden fierce terrible icy",
    "idea": "strange foolish good bad simple difficult brilliant",
    "shape": "bright pale round flat thin regular",
}
COLOURS = ["red", "blue", "green", "yellow", "black", "white", "orange", "purple", "pink", "brown", "grey"]
SIZES = ["big", "small", "large", "little", "tiny", "huge"]
TEXTURES = ["plain", "striped", "dotted", "checked", "faded"]
AGES = ["old", "new"]
#: kind → how often its nouns are given a colour, a size, a texture, an age.
LOOKS = {
    "person": (0, 2, 0, 1), "animal": (3, 3, 0, 1), "food": (2, 3, 0, 1), "tool": (3, 2, 1, 2),
    "vehicle": (3, 2, 1, 2), "cargo": (3, 3, 2, 2), "building": (2, 3, 0, 2), "place": (0, 3, 0, 1),
    "plant": (2, 3, 0, 1), "text": (0, 2, 0, 2), "cloth": (4, 2, 3, 2), "force": (0, 2, 0, 1), "idea": (0, 2, 0, 2),
    "shape": (4, 4, 3, 0),
}  # fmt: skip
#: Adjective → its comparative, for *bigger than*.
COMPARATIVES = {
    "big": "bigger", "small": "smaller", "large": "larger", "old": "older", "new": "newer", "tiny": "tinier",
    "brave": "braver", "kind": "kinder", "clever": "cleverer", "tall": "taller", "fast": "faster", "slow": "slower",
    "heavy": "heavier", "sharp": "sharper", "sweet": "sweeter", "bright": "brighter", "cheap": "cheaper",
}  # fmt: skip

MANNER = """quickly slowly quietly carefully loudly gently badly well easily proudly calmly happily sadly suddenly
    eagerly gladly bravely rudely neatly"""
PLACEWARD = "outside here there upstairs nearby away inside"
FREQUENCY = "often always never rarely sometimes usually also still"
OPENERS = "perhaps suddenly luckily sometimes finally clearly sadly soon maybe often again"
DEGREE = "very quite rather too really so"
PAST_TIMES = "yesterday recently"
PRESENT_TIMES = "today nowadays"

LOCATIVE = "in near behind beside on by under above below outside"
TEMPORAL = "in during before after until"
#: kind → the prepositional phrases that its nouns take: (preposition, kind of its object).
ATTRIBUTES = {
    "person": (("with", "cloth"), ("from", "place"), ("with", "tool"), ("near", "building")),
    "animal": (("from", "place"), ("behind", "plant"), ("near", "building"), ("under", "cargo")),
    "food": (("with", "food"), ("from", "place"), ("on", "cargo")),
    "tool": (("on", "cargo"), ("of", "person"), ("from", "place")),
    "vehicle": (("with", "cargo"), ("near", "building"), ("of", "person")),
    "cargo": (("near", "building"), ("from", "place"), ("under", "plant")),
    "building": (("in", "place"), ("near", "place"), ("behind", "plant")),
    "place": (("near", "building"), ("behind", "place"), ("beyond", "place")),
    "plant": (("in", "place"), ("beside", "building"), ("near", "place")),
    "text": (("about", "animal"), ("about", "person"), ("by", "person"), ("about", "idea")),
    "cloth": (("of", "person"), ("with", "shape"), ("from", "place")),
    "force": (("in", "place"), ("from", "place"), ("over", "building")),
    "idea": (("about", "text"), ("of", "person"), ("behind", "idea")),
    "shape": (("above", "shape"), ("below", "shape"), ("beside", "shape"), ("inside", "shape"), ("near", "shape")),
}
BECAUSE = "because when while after before although if since until"
MODALS = "can will may must could would should might"
NUMBERS = ["two", "three", "four", "five", "six"]

#: Words of the scenes → the words that captions have for them, commonest first.
PLAIN_WORDS = {
    "circle": "circle disc", "triangle": "triangle wedge", "cross": "cross plus", "ring": "ring hoop",
    "moon": "moon crescent", "drop": "drop droplet", "house": "house cottage", "tree": "tree pine", "cup": "cup mug",
    "bolt": "bolt spark", "flower": "flower daisy", "mushroom": "mushroom toadstool", "star": "star asterisk",
    "large": "large big", "small": "small little", "huge": "huge giant", "striped": "striped stripy",
    "dotted": "dotted spotted", "checked": "checked chequered", "faded": "faded shaded", "plain": "plain solid",
    "above": "above over", "below": "below under", "purple": "purple violet",
}  # fmt: skip
#: Words that the rules of ``phrases``, ``language`` and ``captions`` say by themselves.
FUNCTION_WORDS = """the a an this that every each another some no these those all many several few one is are was were
    has have had do does did not to by than of and or but who what which why when where how there . , ? 's he she it
    they we you him her them us his its their our your my middle centre left right top bottom corner near in on at
    looks shows picture image drawing shape shapes object objects thing things biggest two three it"""

IRREGULAR_PLURALS = {
    "man": "men", "woman": "women", "child": "children", "wolf": "wolves", "mouse": "mice", "knife": "knives",
    "potato": "potatoes", "tomato": "tomatoes", "thief": "thieves"
}  # fmt: skip
#: base → past, past participle.
IRREGULAR_VERBS = {
    "eat": "ate eaten", "steal": "stole stolen", "hide": "hid hidden", "bite": "bit bitten", "catch": "caught caught",
    "fight": "fought fought", "feed": "fed fed", "ride": "rode ridden", "shear": "sheared shorn", "grow": "grew grown",
    "hold": "held held", "swing": "swung swung", "throw": "threw thrown", "break": "broke broken",
    "drive": "drove driven", "draw": "drew drawn", "write": "wrote written", "wear": "wore worn", "sew": "sewed sewn",
    "knit": "knitted knitted", "take": "took taken", "meet": "met met", "build": "built built", "leave": "left left",
    "shake": "shook shaken", "sweep": "swept swept", "tear": "tore torn", "bend": "bent bent",
    "forget": "forgot forgotten", "sleep": "slept slept", "sing": "sang sung", "run": "ran run", "leap": "leapt leapt",
    "wake": "woke woken", "sink": "sank sunk", "stand": "stood stood", "fall": "fell fallen", "slide": "slid slid",
    "shrink": "shrank shrunk", "spin": "spun spun", "say": "said said", "think": "thought thought",
    "know": "knew known", "give": "gave given", "send": "sent sent", "show": "showed shown", "lend": "lent lent",
    "teach": "taught taught", "strike": "struck struck",
    "overlap": "overlapped overlapped",
    "read": "read read", "put": "put put", "set": "set set", "sell": "sold sold",
    "bring": "brought brought", "become": "became become", "beat": "beat beaten",
}  # fmt: skip
