"""Words by which a sentence is known to be in a language, and by which that language says what not to take.

`COMMON` tells the language: a sentence none of whose languages is told from these may exclude anything.  `CUES` are
regular expressions over lower case.  A cue stands as a word of its own, or anywhere (`UNSPACED`) where a script sets no
blanks.  A language that negates by a part of a word has a pattern for it (`INFLECTED`), which takes in more than that:
the price of a word too many is a question to a person, that of one too few an effect.
"""

from __future__ import annotations

COMMON: dict[str, str] = {
    "en": """a about above account accounts across add address after again all also am among amount an and another
    any anybody anyone anything app are around article as ask at attach available back balance be because
    been before being below best between bill birthday block board body book both bring budget but buy by
    calendar call can cancel car card change channel check city clean close code comment company confirm
    contact contain content contents copy cost could create currency current customer data date day days
    deal delete description detail details did directory do document documents does done download draft due
    during each earlier edit either email emails end enough euro euros dollar dollars event events every
    everybody everyone everything exactly except expense far fee fetch few file files final find finish
    first fix flight folder follow following food for forget forward found free friend from full get give
    given go good got group had half has have he hello help her here hey hi high him his hotel hotels hour
    hours how however i if important in include info information instead into invite invitation invoice
    invoices is issue it item items its join just keep kind know landlord last later latest leave less let
    like line link list live log long look low lunch made mail make many mark may me meeting member members
    message messages might minute minutes moment money month more most move much must my name near need new
    news next no nobody none not note notes nothing notify now number of off office on once one only open or
    order orders other our out over own page participants party password pay payment people per person phone
    place plan please pm point post press price print project public publish put question quote rate rating
    read reason receipt recent record reference refund remind reminder remove rent reply report request
    reserve reservation restaurant restaurants return review reviews room run same save say schedule search
    see send sender sent set several share she should show sick since site so some somebody someone
    something soon spend spreadsheet start status step stop story subject subscription such sum summarise
    summarize summary sure table take task team tell text than thank thanks that the their them then there
    these they thing this those thread through ticket time title to today together tomorrow tonight too
    total transaction transactions transfer trip try two under until up update upload us use user using
    vacation value very via visit wait want was water way we web webpage website week weekend welcome well
    went were what when where whether which while who whole whom whose why will with within without word
    work would write year years yes yesterday yet you your issues ignore skip omit avoid exclude never
    decline accept approve archive assign collect count compare compute convert deliver deploy describe
    dinner enter extend export extract explain fill gather generate grant hire hold import inform increase
    install introduce label learn locate lower lock merge mention organise organize pack plus prepare
    process propose provide purchase raise rename renew replace reschedule resolve respond restore retrieve
    revoke select sell ship sign sort submit subscribe switch tag test translate turn unsubscribe verify
    watch wire withdraw outcome cc bcc fwd fw re pls thx asap fyi ok okay answer reach drop act adjust
    afternoon airport alert allow announce announcement apartment apply appointment arrange arrival arrive
    assistant attachment attend attendee attendees audit author bank base based become begin belong boss
    branch brief browse build bus business calculate campaign case cases cash category charge chat cheap
    cheapest choose clear click client clients closed colleague colleagues come common compile complete
    condition conditions conference consider contract control correct country course cover credit criteria
    cuisine daily database deadline decide decision deposit design desk destination determine device dietary
    difference different directly discount discuss discussion display doctor double drive early east easy
    else employee employees engineer ensure entire entry estimate even evening exact examine example expect
    expenses expensive expires extra family farewell fast feature feedback field figure figures fine five
    focus form format four fund funds future general gives giving goes gone grand great guest guests guide
    handle happen hard head health hear held highest hiring history home house idea identify immediately
    inbox incident individual initial inside instance instruction instructions intern internal interview
    introduction inventory job june july january february march april august september october november
    december joined jot journey key kitchen large largest launch lead leader left legal length letter level
    library limit listed little local location login longer lot lowest main maintenance manage manager
    matter maybe meal meals meet method middle missing modern morning mother named names nearby needed
    network night nights noon normal north notice notification offer offered older online onto opening
    operation opinion option options original otherwise overview owner package paid pair part parts past
    path pending percent perhaps period permission permissions personal photo picture pick places planned
    planning plans platform play points policy poll popular position possible potential preference
    preferences presentation prices priority private problem product products profile program progress
    projects promise properly property purpose quarter quarterly quick quickly quite rather ratings ready
    real really reasons receive received recently recommend recommendation recommendations records recurring
    reduce region regarding regular related release relevant remember remaining removed rental repeat
    replies reporting requested requests required requirements responsible rest result results returned role
    rooms route rules sales salary savings says scheduled score second section secure security seen sending
    sends sentence separate separately server service services session settings shared sheet shift shop
    short shortly side signed similar simple single situation six size small smallest south space speak
    special specific staff stage standard started statement stay still store street student studio style
    suggest suggestion suggestions suitable summaries supplier support supposed system tables taken talk tax
    teams ten terms texts theme things think third thought three times titled told took top topic tour track
    train training travel treat true trust tuesday wednesday thursday friday saturday sunday monday twice
    type unless unpaid unread updated upcoming urgent usage users usual usually variety various vendor
    version video view visitor vote wants warehouse weather weekly weeks west white wish words working works
    world worth written wrong wrote yearly yours zip""",
    "de": """aber alle als am an auch auf aus bei bis bitte da damit dann das dass dem den der des die dies diese
    diesen doch du durch ein eine einem einen einer er es für gib hat haben hier ich ihm ihn ihr im in ins
    ist ja jetzt kann lies mach man mein meine mir mit nach nicht noch nur oder sag schick schicke schreib
    schreibe sein seine sende sich sie sind so soll teile teilen trage um und uns unter vom von vor war was
    weil wenn wer wie wir wird wo zahl zahle zahlen zu zum zur zwischen über überweise überweisen lade
    einladen bezahle bezahlen werden leite weiter lösche buche bestelle darf muss sollen geld siehe vorher
    antworte""",
    "fr": """à afin ai alors après au aussi autre aux avant avec avoir avez bien ce cela ces cette chez comme dans de
    des deux donc du elle elles en ensuite est et être faire fais faut il ils je jour la le les leur lis lui
    ma mais me mes moi mon ne nos notre nous on ou où par pas payer payez paie paye plus pour puis qu que
    qui sa se ses son sont sur ta te tes tout tous toute très tu un une va veuillez vers virement vos votre
    vous écris écrivez envoie envoyez envoyer invite partage partagez verse versez doit peut argent supprime
    réserve transfère""",
    "es": """a al algo ante antes aquí así aún cada como con cual cuando de del desde después dile donde dos el ella
    ellos en entonces es esa ese eso esta este esto está están favor fue ha haber hacia hasta hay haz he hoy
    la las le les lo los luego me mi mis muy más no nos nosotros o otra otro para paga pagar pague pagues
    pero por porque puede que quien se sea ser si sobre solo son su sus sí también te tiene todo todos tu un
    una uno usa y ya yo envía envíe envíes enviar manda mandes transfiere transferir transfieras comparte
    compartas invita invites escribe escribas borra reserva dinero debe deben cuenta""",
    "pt": """a ao aos as até com como da das de dela dele depois do dos e ela ele eles em entre era essa esse esta
    este está eu foi favor há isso já lhe mais mas me meu minha muito na nas no nos não nós o os ou para
    pela pelo por porque pague pagar paga pode qual quando que quem se sem ser seu seus sim sobre sua só são
    também te tem um uma você vocês à às é envie enviar envia mande transfira transferir partilhe
    compartilhe convide escreva apague reserve dinheiro deve devem conta""",
    "it": """a ad ai al alla alle anche che chi ci come con così cosa da dal dalla dei del della delle di dopo dove
    due e ed era fare fai favore gli ha ho i il in io la le lei lo loro lui ma me mi mio molto nel nella no
    noi non nostro o ogni ora paga pagare per perché più poi prima puoi quando quella quello questa questo
    qui se sei si sia solo sono su sua sul suo tra tu tuo tutti tutto un una uno è invia inviare manda
    mandare trasferisci trasferire condividi invita scrivi cancella prenota soldi denaro deve devono essere
    conto""",
    "nl": """aan al alle als alleen bij ben betaal betalen dan dat de deel deze die dit doe door een en er gaan geef
    geen haar had heb heeft hem het hier hij hoe ik in is ja je jij jou kan komt lees maak maar me meer met
    mij mijn moet mag na naar niet nog nu of om onder ons ook op over schrijf stuur sturen te tegen ten tot
    u uit uw van veel via voor was wat we wel werd wie wij wil wordt worden zal ze zich zij zijn zo nodig
    geld verwijder boek alsjeblieft alstublieft overmaken""",
    "sv": """alla allt att av bara betala betalas bjud blir bli de dela dem den denna dessa det detta dig din du där
    då efter eller en ett för från få får ge genom ha han har hon honom hur här i in inte ja jag kan kommer
    man med mellan men mig min måste mot nu när och också om oss på sedan sig sin ska skall skicka skriv
    skulle som så till under upp ut vad var vara vem vi vid vill är över läs pengar radera boka överför""",
    "da": """af alle at betal betales bare da de del dem den denne der deres det dette dig din du efter eller en er
    et fra for få får gennem giv ham han har hen her hun hvad hvem hvor i ikke ind ja jeg kan kun læs man
    med mellem men mig min mod må nu når og også om op os over overfør på sammen send sende sendes sig sin
    skal skriv som så til ud under var ved vi vil være inviter penge slet book skulle venligst""",
    "no": """av alle at bare betal betales betale da de del dem den denne der deres det dette deg din du eller en er
    et etter fra for få får gi gjennom ham han har her hun hva hvem hvor i ikke inn ja jeg kan kun les man
    med mellom men meg min mot må nå når og også om opp oss over overfør på sammen send sende sendes seg sin
    skal skriv som så til ut under var ved vi vil være inviter penger slett bestill skulle vennligst""",
    "fi": """ei en ehkä että hän he ja jo jos joka jotka kaikki kanssa kautta kiitos koska kuin kun lähetä laita lue
    maksa maksaa me mikä minä minun mitä mutta myös ne niin nyt näin on oli olla ole pitää saa se sen sinä
    sitten tai te tämä tämän vain vai voi vielä älä jaa kirjoita kutsu siirrä rahaa euroa poista varaa
    täytyy""",
    "pl": """a albo ale bez być by była było co czy dla do gdy go i ich ile im ja jak jako jego jej jest jeszcze już
    każdy kiedy która który lub ma mi mnie może moje musi na nad nam nas nie niż o od on ona oni oraz
    pieniądze po pod potem poproszę proszę przed przelej przez przy podziel są się ta tak tam te tego ten to
    tu tych tylko tym u w we więc wszystkie wyślij wysłać wysyłaj z za zapłać zapłacić płać zaproś napisz ze
    że żeby usuń zarezerwuj udostępnij""",
    "cs": """a aby ale ani až bez bude by byl být co do dva i já jak jako je jeho její jen jestli ještě jsem jsou k
    kde kdy kdo když která který má mě mi moje můj může musí na nad nebo o od on ona oni po pod podle pak
    peníze pošli poslat posílej plať prosím pozvi protože před přes převeď při s sdílej se si tak také ta
    ten tento to u už v ve všechny z za zaplať zaplatit že smaž napiš rezervuj""",
    "sk": """a aby ale ani až bez bude by bol byť čo do i ja ako je jeho jej len ešte som sú k kde kedy kto keď ktorá
    ktorý má mi môj môže musí na nad alebo o od on ona po pod podľa potom peniaze pošli poslať posielaj plať
    prosím pozvi pred cez preveď pri s zdieľaj sa si tak tiež ten tento to u už v vo všetky z za zaplať
    zaplatiť že napíš""",
    "ro": """a acest această al ale am ar are așa atunci avea bani ca când că cât care ce cel cu cum da dar de decât
    din doar după e ea ei el este eu fi fost îi îl în între la le lui mai mea meu mi nu o oricui pe pentru
    plătește plăti poate prin rog sa să se si și sunt te toate trebuie trimite transferă un una unei unui vă
    scrie invită""",
    "hu": """a az és egy hogy nem is ez azt csak de meg van volt majd már mint még ki mi mit minden ha vagy kell
    lehet után alapján fizess fizesd küldd küldj küldje utald utalj kérlek kérem neki pénzt nekem írj oszd
    hívd""",
    "hr": """a ali bi bio biti bude da do dok ga i ih ili iz ja je jer jedan još kad kako kao koja koje koji li me mi
    mogu moj mora može na nakon nam ne neka o od on ona oni po pod pošalji poslati plati platiti prije pri s
    sa samo se smije su sve ta taj te ti to tu u uz već za zatim što molim novac napiši pozovi podijeli""",
    "tr": """ama bana ben bir biraz bu bunu çok da daha de diye en et edin gibi gönder gönderin hem her için ile ise
    kadar ki kim lütfen mı mi mu mü ne o olan olarak oku olsun on onu onun öde ödeyin para paylaş sadece sen
    sonra şu tüm ve veya ver verin ya yap yapın yaz yine yok davet euro avro hesabına hesaba""",
    "id": """ada adalah agar akan aku anda apa atau bagi bahwa baru bayar bayarlah bagikan beri bisa buat dalam dan
    dapat dari dengan di dia hanya harus hapus ia ini itu jika juga kami kamu karena ke kepada kirim
    kirimkan kita kalau lagi lain lalu mereka oleh pada pembayaran pesan saja sama sampai saya sebagai
    sebelum sedang semua seperti sesudah setelah silakan sudah tapi telah tetapi tolong transfer uang undang
    untuk yang uangnya tulis boleh""",
    "vi": """anh bạn bị bởi các cái cần chỉ cho chúng có của cùng cũng đã đang đây để đến đi được đó gửi hãy hay họ
    khi là lại làm lên mà mình một mời này nên nếu người những như nhưng phải qua ra rằng rất sau sẽ tại
    thanh thì theo tiền tôi toán trả trong trước từ và vào về với vui lòng xin xóa viết chuyển chia sẻ""",
    "ca": """a al amb aquest aquesta cap com de del dels des el els en és està ho i ja la les li més meu molt o per
    pels però que qui sense si són també tot un una va vas paga envia comparteix diners escriu""",
    "ru": """а без более был была были было быть в вам вас весь во вот все всё всем вы где да для до его ее её если
    есть еще ещё же за заплати заплатите и из или им их к как когда который кто ли меня мне можно мой на над
    надо нам нас наш не него нее нет ни но о об он она они оно от отправь отправьте отправляй перед переведи
    переведите перечисли по под пожалуйста после потом прочитай при про пригласи платить плати поделись
    пришли с свой себя скажи со так также там тебя то только ты у удали уже чтобы что это этого этой этот
    эту я деньги евро рублей напиши должна должен""",
    "uk": """а або але без бо був була були було бути в вам вас вже ви від все всі встав де для до є його її із і й
    їх коли кому який яка що як це цей ця на над нам нас наш не нехай ні о об він вона вони по під після при
    про прошу сплати сплатіть заплати заплатіть плати надішли надішліть надсилай перекажи переведи запроси
    будь ласка поділись з за зі та також там те тебе ти тільки то у гроші євро гривень я мені щоб напиши
    повинна видали""",
    "bg": """а аз ако без беше би бъде в вас ви все във да дали до ги го се е за заплати и или им има й как като
    която който към ли ме ми може моля му на над най не него нея ни но обаче от още парите пари по под
    покани после прати изпрати преведи при с са само след със също така те ти това този тя то у че ще я
    плати сподели""",
    "sr": """а али би био бити да до га и или из ја је још кад како као која које који ли ме ми може моје на након не
    нека о од он она они плати платити по под пошаљи пре са само се су све та тај те ти то у уз већ за затим
    што молим новац напиши""",
    "el": """α αν από απ αυτή αυτό αυτός για δεν εγώ είναι ένα έναν ένας εσύ έχει η ή θα και κάθε με μετά μέχρι μη
    μην μια μόνο μου να ο οι όλα όλους ότι όταν παρακαλώ πλήρωσε πληρώσεις πληρώσετε ποιος που πριν προς σας
    σε στα στείλε στείλεις στέλνεις στη στην στις στο στον στους συ τα τη την της τι τις το τον του τους των
    ως χρήματα ευρώ μοιράσου γράψε""",
    "ar": """أن أنا أنت أو إذا إلى الى التي الذي الرجاء ارسل أرسل أرسلي ادفع ادفعي اقرأ الآن المال بعد بين ثم جدا حول
    حتى حيث دفع دولار رجاء شارك على عن عند فقط في قبل قد كان كل كما لأن لكن له لها لي مبلغ مع من منه نحن هذا
    هذه هل هم هنا هو هي و ولكن يا يجب يكون يورو حوّل يتم تدفع ترسل اكتب""",
    "fa": """آن است او این اگر از اما با باید بر برای بعد به بود پس پول پرداخت پرداز تا تو چه خود در دو را رو سپس شما
    شود شد فرستاد بفرست بپرداز فقط کرد کن کنید که لطفا لطفاً ما من می هر هم همه و ها های یا یک یورو دلار
    بنویس منتقل واریز ارسال دعوت بده""",
    "ur": """اور اس ان ایک اسے بھی بھیج بھیجیں بھیجو پر تک تو جو دیں دو سے سب صرف کا کر کریں کرو کو کی کے گا میں مجھے
    نے ہو ہے ہیں وہ یا یہ یورو پیسے رقم ادا ادائیگی براہ کرم""",
    "he": """אבל אחרי אותה אותו אותי אחד אחת אם אנא אנחנו אני את אתה בבקשה בין בכל גם הוא היא הם הן הזה הזאת העבר
    העבירי הכסף הכל ואז ואת זה זו יש כאן כבר כדי כי כל כמו כמה כסף לו לה להם לי לפני מה מי מן מתי של שלח
    שלחי שלם שלמי עד עוד על עם עכשיו פה קרא רק שקל שקלים יורו תודה תשלם תשלח תעביר שתף הזמן כתוב""",
    "hi": """अगर अपना अपने अब आप इस इसे उन उस उसे एक और कर करें करो करना का कि किसी की के को कोई क्या जब जो तक तो था
    थी थे दें दे दो नाम पर पहले पैसे फिर बाद भी भेजें भेजो भेज भुगतान मुझे में मैं यह या ये यूरो रुपये लिए
    वह वे साथ सब सभी से हम हर ही हुआ है हैं हो कृपया केवल चाहिए लिखें बताएं""",
    "mr": """आणि आपण आहे आहेत एक करा कर का की च चा ची चे तर तो त्या त्याला द्या नंतर पाठवा पैसे मला मी या ला व साठी
    हा ही हे कृपया""",
    "bn": """আমি আর আমার এই এক একটি এবং এর ও কর করুন করো কি কে কোন জন্য টাকা তা তার তাকে তুমি তো থেকে দাও দিন দিয়ে
    পর পাঠান পাঠাও পাঠাবেন প্রদান যে সব সে হবে হয় অনুগ্রহ করে দয়া শুধু ইউরো দেবেন সঙ্গে""",
}
"""Language -> words that nearly every sentence of it has one of, and what people ask for: pay, send, share, invite."""

CUES: dict[str, str] = {
    "de": r"nicht|kein\w*|nie|niemals|niemand\w*|nirgends|weder|außer|ausser|ausgenommen|ausnahme|ohne"
    r"|statt|anstatt|anstelle|vermeide\w*|meide|überspring\w*|ignorier\w*|verboten|untersag\w*"
    r"|verbiete\w*|ausschlie\w*|aus(?:ge)?lassen|ausgeschlossen|unterlass\w*|keinesfalls"
    r"|keineswegs|nichts|lass|bis auf|abgesehen|weglassen",
    "fr": r"ne|n['\u2019]\w+|pas|jamais|personne|aucun\w*|rien|ni|sans|sauf|except\w+|hormis|au lieu"
    r"|plutôt|à l['\u2019]exception|évit\w+|exclu\w+|ignor\w+|autre que|autres que|à part"
    r"|interdi\w+|non|omet\w*|saute[zr]?|laisse\w*|oublie\w*",
    "es": r"no|ni|nunca|jamás|nadie|ning[uú]n\w*|nada|except\w+|exceptuando|salvo|menos|sin|en vez"
    r"|en lugar|evit\w+|exclu\w+|omit\w+|salt[ae]\w*|tampoco|prohib\w+|aparte|fuera de"
    r"|distint[oa]s?|otr[oa]s? que|ignor\w+|descart\w+",
    "pt": r"não|nao|nem|nunca|jamais|ninguém|nenhum\w*|nada|ex[ce]eto|exceptuando|salvo|menos|sem|em vez"
    r"|ao invés|em lugar|evit\w+|exclu\w+|omit\w+|pul[ea]\w*|tampouco|proib\w+|fora|senão|exceção"
    r"|ignor\w+|à parte|além|mãos|deix[ae]\w*",
    "it": r"non|né|mai|nessun\w*|niente|nulla|tranne|eccett\w+|salvo|senza|invece|anziché|piuttosto"
    r"|evit\w+|esclu\w+|salt[ai]\w*|meno|fuorché|viet\w+|nemmeno|neanche|neppure|al posto|ignor\w+"
    r"|ometti|eccezione|a parte|giù le mani|lascia\w*|via da",
    "nl": r"niet|nie|moenie|behalwe|sonder|geen|nooit|nimmer|niemand|niets|behalve|uitgezonderd|zonder"
    r"|in plaats|vermijd\w*|noch|buiten|uitgesloten|sluit|verboden|overslaan|oversla|sla|weglaten"
    r"|negeer|uitzondering|anders dan|dan wel|laat",
    "sv": r"inte|ej|icke|aldrig|utom|förutom|i ?stället|utan|undvik\w*|hoppa|ingen|inga|inget|undant\w+"
    r"|uteslut\w*|varken|förbj\w+|ignorera|utelämna|strunta|bortsett|låt bli",
    "da": r"ikke|aldrig|undtagen|bortset|uden|i ?stedet|undgå\w*|ingen|intet|udelad\w*|spring|hverken"
    r"|udeluk\w*|forbyd\w*|forbudt|ignor\w+|undlad|frem for|andre end",
    "no": r"ikke|ikkje|aldri|unntatt|unntak|uten|i ?stedet\w*|unngå\w*|ingen|intet|ei|bortsett|utelat\w*"
    r"|utelukk\w*|hopp|verken|forb[uy]\w+|ignorer|la være|andre enn|fremfor",
    "fi": r"ei|ära|ärge|mitte|ilma|asemel|en|et|emme|ette|eivät|eikä|äl\w+|paitsi|ilman|sijaan|sijasta"
    r"|ottamatta|väl[tl]\w+|ohit\w+|jätä|kukaan|kenellekään|mitään|koskaan|kiellet\w+|lukuun"
    r"|muille kuin|\w+m[aä]tt[aä]",
    "pl": r"nie|ani|nigdy|nikt|nik\w+|żad[en]\w*|niczego|oprócz|prócz|poza|bez|zamiast|unika\w*"
    r"|pomi[nńj]\w*|wyklucz\w*|wyjątk\w*|wyjąwszy|zabr\w+|zakaz\w*|wyłącz\w*|niż|omi[jń]\w*"
    r"|ignoruj",
    "cs": r"ne|ni|ani|nikdy|nik\w+|žádn\w+|kromě|vyjma|mimo|bez|místo|vyhn\w*|vynech\w*|vylu[čc]\w*"
    r"|zák\w+|zakáz\w*|než|výjimk\w+|nesm\w+|ignoruj",
    "sk": r"nie|ani|nikdy|nik\w+|žiadn\w+|okrem|bez|namiesto|vyhn\w*|vynech\w*|vylú[čc]\w*|zák\w+"
    r"|výnimk\w+|nesm\w+",
    "ro": r"nu|fără|excepția|exceptând|în loc|niciodată|nimeni|nimănui|nimic|afară|evit\w+|omit\w+"
    r"|exclu\w+|decât|nici|niciun\w*|interzis\w*|ignor\w+|n-\w+|mâinile|las[aă]\w*",
    "hu": r"ne|nem|sem|se|soha|senki\w*|semmi\w*|kivéve|nélkül|helyett|kerül\w*|mellőz\w*|tilos"
    r"|kihagy\w*|hagyd|\w+kívül|kizár\w*|nincs\w*|eltekintve",
    "hr": r"ne|ni|niti|nikad\w*|nik\w+|nemoj\w*|osim|bez|umjesto|umesto|mimo|izbjeg\w+|izbeg\w+"
    r"|presko\w+|isklju\w+|zabranj\w+|nem\w+|nije|nisu|razen|namesto|nobe\w+|nih\w+",
    "tr": r"değil|hayır|asla|hiç\w*|hariç|dışında|yerine|yok|olmadan|başka\w*|kaçın\w*|atla\w*|yasak\w*"
    r"|sakın|ne|haricinde|gayrı|istisna\w*|sayma\w*",
    "id": r"tidak|tak|tanpa|jangan\w*|bukan\w*|kecuali|selain|daripada|alih-alih|hindari|lewati|abaikan"
    r"|dilarang|larang|belum|tiada|melainkan|usah|pengecualian|ketimbang|dikecualikan",
    "vi": r"không|đừng|chớ|trừ|thay vì|tránh|chưa|chẳng|cấm|bỏ|loại|ngoài|ngoại|miễn|chả|kẻo|khác",
    "ca": r"no|ni|mai|ningú|cap|res|excepte|llevat|tret|sense|en lloc|en comptes|evit\w+|exclo\w+"
    r"|omet\w*|menys",
    "ru": r"не|нет|ни|без|кроме|вместо|никогда|ник\w+|нельзя|исключ\w+|избега\w+|пропус\w+|запре\w+"
    r"|помимо|ничего|нич\w+|минуя|иначе|нежели|опусти\w*|игнорир\w+|отказ\w*|за исключением",
    "uk": r"не|ні|без|крім|окрім|замість|ніколи|нік\w+|нічого|виключ\w+|виня\w+|уник\w+|пропус\w+"
    r"|заборон\w+|поза|жод\w+|немає|оминай|ігнор\w+|опріч",
    "bg": r"не|недей\w*|ни|без|освен|вместо|никога|ник\w+|нищо|изключ\w+|избягв\w+|пропус\w+|забран\w+"
    r"|няма|игнорир\w+",
    "sr": r"не|ни|нити|немој\w*|осим|без|уместо|никад\w*|ник\w+|избег\w+|прескоч\w+|искључ\w+|забрањ\w+"
    r"|није|нем\w+",
    "el": r"μη|μην|δεν|δε|χωρίς|χωρις|δίχως|εκτός|εκτος|αντί|αντι|όχι|οχι|ποτέ|ποτε|ούτε|καν[εέ]\w+"
    r"|κανέν\w*|πλην|αποφ\w+|εξαιρ\w+|παράλειψ\w*|παραλ\w+|απαγορ\w+|μήτε|άνευ|αγνόησ\w*|τίποτα"
    r"|παρά|μηδέν|αποκλ\w+",
    "ar": r"[وفب]?(?:لا|لن|لم|ليس|ليست|غير|إلا|الا|ألا|عدا|ماعدا|سوى|دون|بدون|بلا|ما|كلا|أبدا|أبداً|خلا)"
    r"|بدل\w*|تجنب\w*|ا?ستثن\w*|باستثناء|ممنوع\w*|يمنع|تجاهل\w*|عوض\w*|يحظر|استبعد\w*|حذار|إياك"
    r"|يُمنع|لئلا|يستثنى",
    "fa": r"ن[\w\u200c]{2,}|نه|غیر|بجز|به‌جز|جز|بدون|بی|جای|به‌جای|مگر|هرگز|هیچ\w*|اجتناب|استثنا\w*"
    r"|ممنوع\w*|پرهیز|مبادا|الا|سوای|م[\w]{1,4}",
    "ur": r"نہ|نہیں|مت|سوائے|سوا|بغیر|بنا|علاوہ|بجائے|گریز|چھوڑ\w*|منع|کبھی|ہرگز|نا",
    "he": r"[ושכ]?(?:לא|אל|אין|בלי|מבלי|ללא|חוץ|מלבד|פרט|זולת|למעט|במקום|אסור|בלעדי|אינ\w*|איש|אף)"
    r"|הימנע\w*|להימנע|לעולם|דלג\w*|התעלם\w*|מנע\w*|תימנע\w*|החרג\w*|להוציא|לבד|שום|ידי(?:ים|ך|כם)|עזוב\w*",
    "hi": r"मत|नहीं|नही|न|ना|बिना|सिवा\w*|छोड़\w*|छोड़\w*|अलावा|बजाय|मना|वर्जित|निषेध|कभी|बगैर|टाल\S*"
    r"|बच\S*|रहित|सिवाय",
    "mr": r"नको\S*|नका|नाही\S*|नये|शिवाय|वगळ\S*|ऐवजी|न|विना|टाळ\S*",
    "bn": r"না|নয়|নয়|নেই|নি|ছাড়া\S*|ছাড়া\S*|বাদ\S*|ব্যতীত|বিনা|পরিবর্তে|বদলে|এড়\S*|এড়\S*|কখনও|কখনো"
    r"|নিষেধ|নিষিদ্ধ|নহে",
}
"""Language -> how it says no, without, except, instead, avoid."""

INFLECTED: dict[str, str] = {
    "cs": r"ne(?!j|b[eoy]|d[eě]l|ut|tt|w|xt|ws|ed\b)[^\W\d_]{2,}",
    "sk": r"ne(?!j|b[eoy]|d[eě]l|ut|tt|w|xt|ws|ed\b)[^\W\d_]{2,}",
    "tr": r"[^\W\d_]{2,}m[ae](?:y[ıi]n(?:[ıi]z)?|s[ıi]n(?:l[ae]r)?|d[ae]n|z|zs[ıi]n(?:[ıi]z)?"
    r"|m[ae]l[ıi]\w*|y[ae]c[ae]\w+)?|[^\W\d_]{2,}m[ıiuü]yor\w*|[^\W\d_]{2,}s[ıiuü]z",
}
"""Language -> what a word of it looks like that is negated by a part of it."""

UNSPACED = (
    # Chinese and Japanese
    r"[不别別勿莫没沒無无非除免禁避未否毋甭唔冇咪弗拒]|跳过|跳過|忽略|代替|取代|换掉|"
    r"ない|なく|なし|ません|ぬ|ず|以外|やめ|止め|抜き|無視|外し|外す|だめ|ダメ|なかれ|代わり|かわり|[うくぐすつぬぶむる]な(?![らのくいん])"
    # Korean
    r"|않|안\s|못|말(?:고|아|라|것|기)|마(?:세요|라|십시오|요|시)|지\s?마|없|아니|아닌|제외|빼고|대신|외에|이외|금지|피하|피해|말[.!]|건너뛰|무시"
    # Thai
    r"|ไม่|อย่า|ห้าม|ยกเว้น|นอกจาก|แทนที่|เว้น|มิ|งด|หลีกเลี่ยง|ไร้|ปราศจาก|ข้าม|ละเว้น|แทน"
)
"""What says so anywhere in a text, whatever stands beside it."""
