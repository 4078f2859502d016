"""Whether a reply that condemns a recipient says that and nothing else.

Knows the words of which such replies are made. A word that is none of them may be the reason why it is not so.
"""

import re
from collections.abc import Iterable
from typing import Final

from policies.rule import Rule
from policies.said import Heard

_VOCABULARY: Final = """
    abandoned able aborted accept accepted accepting accepts access accessed account accountdisabledexception
    accounts action activated active activity actually address addressee addresses admin administracyjnie
    administration administratively administrator adres adresa adresat adresse adressen adresu again ago alias
    aliases alici all allocated allowed already also an and announces another anvandare any anybody anymore ao
    applications archived archivee are argument as assigned associated at au aucun aucune authorization
    automatically aux available back bad be because been bei bekannt bekend belongs benutzer best bestaat bilinmeyen
    bitte blank blocked bloque bloquee boite bounce bounced box bruger bruker brukeren bulunamadi but buzon by caixa
    called can canceled cancelled cannot cant casella casilla ce cerrada cet cette characters check checking chiusa
    chkuser cimzett client closed code company compte con configured confirm conta contact correct correctly correo
    could couldnt cuenta currently customer customers czytaj das data day days dd de deactivated deaktiviert dear
    default defined definitely del deleted deliver deliverable delivered delivery dem den denied department der des
    desactivada desactive desactivee desativada desativado desconhecida desconhecido desconocida desconocido
    deshabilitada deshabilitado desk destin destinat destinataire destinatar destinatario destination detail details
    deze di did didnt die diese dieser dieses direccion directory disabilitata disabilitato disable disabled
    disattivata disattivato discontinued dit dns do does doesnt domain domains domino dormant dosnt double dr du due
    during ein eine einem einer el eliminada eliminado email empfaenger employee en encontrado encontro ended
    endereco ensure enter entered entry error errors esiste esistente esmtp est esta este ever everybody exist
    existant existe existed existen existent existerar existieren existiert existing exists expired explanation
    extended fail failed failing failure fatal favor felhasznalo ferme fermee final find findes finnes finns first
    for format forwarding found free from frozen gebruiker gebruikersnaam gecersiz gefunden geloescht geschlossen
    gesperrt gli go gone got gsmtp ha had handle has hasnt have hello help here hi hier host hosted id if ikke il
    illegal im imap in inactif inactiva inactivated inactive inactivity inaktiv inativa inattiva inbox incoming
    inconnu inconnue incorrect indirizzo inesistente inexistant inexistante inexistent inexistente info information
    inte intended intented internet invalid invalide is isblocked ismeretlen isnt ist istnieje it its jest just kein
    keine keinen known konta konto korisnik kullanici kunde kutusu la ladresse las last le learn leave left les
    letezik lettres list listed lmtp lo local locate located locked logged long longer look lookup los lub ma mail
    mailaddress mailbox mailboxes mailhost mails make manually many map mapped marked match matched matches matching
    mbox mehr member miss missing misspelled mister modtageren moins month months more mottagare mottagaren mottaker
    moved mr mrs ms mta must mx my name names nao ne necunoscut neexistuje neexistujici nem nepoznat nessun nessuno
    neste network never new nexiste neznamy nicht nie nieaktywne niet nieznana nieznany no noactivity nobody nom
    nome non none nonexistent nonexisting nosuchuser not note notice now nsmtp null nullmx nutzer obsolete oder of
    off ok okand on onbekend onbekende one online only onto ontvanger or organisation organization os other ou our
    ours output own owner page part pas people periods permanantly permanent permanently person placeholder please
    plus podane point pop poped por posta postal postbus postfach postmaster postoji present prijemce provisioned
    query questa questo rcpt rcptto re reach read really reason reasons receive received receives receiving
    recipient recipients recognised recognized redirect ref reference refuse refused refusing regards registered
    reject rejected rejecting relay remove removed replaced request requested resend resolve resolved response
    result results retired return returned returning rfc routable route routed same schranka sconosciuta sconosciuto
    se second see sent server servers service services servidor set settings setup sfr should siamo simply since
    sind site siteground skrzynka smtp so someone sont sorry spaces spelled spelling spiacenti st status still
    subscriber such support supprime sure suspend suspended switched syntax system systems table taken takes taki
    takie takiego te teilnehmer terminated than thank thanks that the their then there these this those time times
    to tried tries try trying two typed typo typos ucet ukendt ukjent un unable unallocated unavailable unbekannt
    unbekannte unbekannten unbekannter und undeliverable une unfamiliar unfortunately ungueltig unk unknown unkown
    unnecessary unreachable unrecognised unrecognized unresolvable unroutable unrouteable uns up use used user users
    usuaria usuario usuarios utente utilisateur utilisatrice utilizator uzivatel uzytkownik uzytkownika valid valida
    valido validrcptto van verification verifier verifique verify veuillez virtual visit vorhanden was we web were
    werent where which who whose wiecej will with without works worldnet would write wrong wrote wurde wurden year
    years yok you zablokowane zu zum zur
"""
"""Of replies that were meant so, in English and in other languages as far as they are written in ASCII."""
_WORDS: Final = frozenset(_VOCABULARY.split())
_SAYS_SO: Final = frozenset({"5.1.1", "5.1.6", "5.1.10"})
"""The recipient's address is what is wrong (RFC 3463 section 3.2; 5.1.10 is RFC 7505's)."""
_NAMES: Final = re.compile(r"[@/\\_=#<\[\d]|\w\.\w")
"""In what names somebody or something: an address, a host, an id, a code, a place on the web."""
_WORD: Final = re.compile(r"[^\W\d_]{2,}")
_BEFORE_ALL: Final = re.compile(r"^[a-z-]{2,20}[:;] ")
"""The program or the class of error that some servers begin with."""
_BARE_NAME: Final = re.compile(
    r"(?:^|\b(?:user|users|mailbox|account|recipient|address|named|called|name|alias|rcpt)\b:? ?[\"(]?|: )([a-z]{2,})\b"
)
"""Where a server prints the name of a mailbox without its domain."""


def says_only_that(rule: Rule, heard: Heard) -> bool:
    """Whether each word of a reply is one that condemns a recipient, names him or says nothing.

    Where the status says so as well, its words may be any but those of `policies.matching` that cast a doubt.
    """
    if heard.enhanced in _SAYS_SO:
        return True
    text = _BEFORE_ALL.sub("", heard.text).replace("your mail", "mail").replace("check your", "check")
    text = " ".join([part for part in text.split() if not _NAMES.search(part)])
    strange = {word for word in _WORD.findall(text) if word.isascii()} - _WORDS
    if strange:
        strange -= _said(rule.any_of) | _said(rule.all_of) | _said(rule.examples)
    return not strange or (len(strange) == 1 and strange <= set(_BARE_NAME.findall(text)))


def _said(texts: Iterable[str]) -> set[str]:
    return {word for text in texts for word in _WORD.findall(text.lower())}
